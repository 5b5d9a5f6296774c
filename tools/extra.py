"""Print the requirements of an extra of pyproject.toml, a line each, to install without a build."""

import re
import sys
from pathlib import Path

text = (Path(__file__).parent.parent / "pyproject.toml").read_text()
extras = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
found = re.search(rf"^{re.escape(sys.argv[1])} = \[(.*?)\]", extras, re.DOTALL | re.MULTILINE)
if found is None:
    sys.exit(f"pyproject.toml has no extra {sys.argv[1]!r}")
print("\n".join(re.findall(r'"([^"]+)"', found.group(1))))
