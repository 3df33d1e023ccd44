"""The pictures in a run directory, as part of the page."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from history.page import Html
from history.run import Run

PNG = b"\x89PNG\r\n\x1a\n"
MAX_BYTES, MAX_PICTURES = 4 << 20, 50


def pictures(run: Run) -> Html | None:
    """Return the PNG files of the run directory and of its folder figures/; None where there is none."""
    files = [path for folder in (run.path, run.path / "figures") for path in sorted(folder.glob("*.png"))]
    found = [picture for path in files[:MAX_PICTURES] if (picture := _picture(path))]
    return Html('<div class="pictures">\n{}\n</div>').format(Html("\n").join(found)) if found else None


def _picture(path: Path) -> Html | None:
    """Return the picture with its name, which also describes it; None for a link, another format, or over 4 MiB."""
    try:
        if not path.is_file() or path.is_symlink() or os.path.getsize(path) > MAX_BYTES:
            return None
        data = path.read_bytes()
    except OSError:
        return None
    title = path.stem.replace("_", " ").replace("-", " ")
    code = base64.b64encode(data).decode()
    text = '<figure><figcaption>{0}</figcaption><img alt="{0}" src="data:image/png;base64,{1}"></figure>'
    return Html(text).format(title, code) if data.startswith(PNG) else None
