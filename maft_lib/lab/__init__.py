"""What JupyterLab shows: records as HTML, a running study, the explorer and the studio."""
