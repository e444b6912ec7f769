"""``python -m api.openapi docs/openapi.json`` writes the committed description of the HTTP interface."""

import sys
from pathlib import Path

from api.app import create_app, document_text
from api.settings import Settings

if __name__ == "__main__":
    Path(sys.argv[1]).write_text(document_text(create_app(Settings())))
