"""Every block of code in the project's documents, with its language and its place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).resolve().parents[2]
INDENTED = "an indented block"


@dataclass(frozen=True)
class Block:
    """A block of code: where it stands, the word behind its fence, what is in it."""

    page: str
    line: int
    language: str
    text: str

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[str]:
    """README, CONTRIBUTING and all pages of the site, as paths from the project's root."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [str(path.relative_to(ROOT)) for path in found]


def blocks(page: str, text: str | None = None) -> list[Block]:
    """The blocks of ``page`` in their order, those in lists and quotes too; of ``text`` where it is given."""
    text = (ROOT / page).read_text(encoding="utf-8") if text is None else text
    tokens = [token for token in MarkdownIt().parse(text) if token.type in ("fence", "code_block")]
    return [
        Block(
            page,
            (token.map or [0])[0] + 1,
            (token.info.split() or [""])[0] if token.type == "fence" else INDENTED,
            token.content,
        )
        for token in tokens
    ]
