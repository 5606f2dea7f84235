"""Proof in a real browser: Chromium, driven by Playwright, against a real JupyterLab server."""
