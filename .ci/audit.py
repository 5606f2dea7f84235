"""Known weaknesses of the packages in constraints.txt, by pip-audit: findings fail, silence is said.

pip-audit itself ends well where its service knows none of the packages, which then were not audited.
"""

import json
import subprocess
import sys

# Findings that do not concern this project: {identifier: why}; to be read again when pins change.
ACCEPTED: dict[str, str] = {}
ASKED = ("--requirement", "constraints.txt", "--no-deps", "--disable-pip", "--progress-spinner", "off")


def main() -> int:
    """The exit code: 1 if a package has a known weakness that is not accepted."""
    command = [sys.executable, "-m", "pip_audit", *ASKED, "--format", "json"]
    said = subprocess.run(command, capture_output=True, text=True)
    packages = json.loads(said.stdout)["dependencies"] if said.stdout.startswith("{") else []
    known = [package for package in packages if "skip_reason" not in package]
    if not known and not packages and "Connection" not in said.stderr:
        sys.exit(said.stderr)
    if not known:
        print("pip-audit: nothing was audited, its service cannot be reached from here.")
        return 0
    found = [(p, v) for p in known for v in p["vulns"] if v["id"] not in ACCEPTED]
    for package, weakness in found:
        mended = ", ".join(weakness["fix_versions"]) or "no version yet"
        print(f"{package['name']} {package['version']}: {weakness['id']}, mended in {mended}.")
    print(f"pip-audit: {len(known)} of {len(packages)} packages audited, {len(found)} findings.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
