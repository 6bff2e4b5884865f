"""The pages of the documentation, taken apart: blocks, commands, links, headings.

A fenced block that names no language is of commands, to be typed in one after the other.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        language: that it names; none for commands.
        text: without the fence.
        line: on which it begins.
        section: the heading that it is under.
        intro: the paragraph before it, on one line.
    """

    language: str
    text: str
    line: int
    section: str
    intro: str

    @property
    def commands(self) -> list[str]:
        """Each with the lines that it goes on over; comments are left out."""
        found: list[str] = []
        until = ""  # the word that ends what a command reads, and the backslash that goes on
        for line in self.text.splitlines():
            if until:
                found[-1] += f"\n{line}"
                goes_on = line != until if until != "\\" else line.endswith("\\")
                until = until if goes_on else ""
            elif line and not line.startswith("#"):
                found.append(line)
                heredoc = re.search(r"<<'(\w+)'$", line)
                until = heredoc[1] if heredoc else "\\" if line.endswith("\\") else ""
        return found

    def applied_to(self, folder: Path) -> None:
        """Do with a block of code what the words before it say; AssertionError if it cannot be."""
        place = re.search(r"\b(in|at the end of) `(\S+)`:$", self.intro, re.IGNORECASE)
        assert place, f"line {self.line}: where does this code go? It says: {self.intro}"
        file = folder / place[2]
        text = file.read_text()
        if self.language == "diff":
            lines = self.text.splitlines(keepends=True)
            old = "".join(line[1:] for line in lines if line[0] != "+")
            new = "".join(line[1:] for line in lines if line[0] != "-")
            assert text.count(old) == 1, f"line {self.line}: {place[2]} has other lines"
            file.write_text(text.replace(old, new))
        else:
            file.write_text(f"{text}\n\n{self.text}")


@dataclass(frozen=True)
class Page:
    """A page of Markdown.

    Attributes:
        path: relative to the project's root.
    """

    path: Path

    def __str__(self) -> str:
        return self.path.as_posix()

    @cached_property
    def text(self) -> str:
        return (ROOT / self.path).read_text()

    @cached_property
    def blocks(self) -> list[Block]:
        return list(self._blocks())

    def _blocks(self) -> Iterator[Block]:
        for fence in _FENCE.finditer(self.text):
            indent, language, text = fence.groups()
            before = _FENCE.sub(
                lambda found: "\n" * found[0].count("\n"), self.text[: fence.start()]
            )
            *_, section = ["", *_HEADING.findall(before)]
            intro = " ".join(before.rstrip().rpartition("\n\n")[2].split())
            text = re.sub(f"^{indent}", "", text, flags=re.MULTILINE)
            yield Block(language, text, before.count("\n") + 1, section, intro)

    @cached_property
    def prose(self) -> str:
        """What is outside of blocks."""
        return _FENCE.sub("", self.text)

    @cached_property
    def spans(self) -> list[str]:
        """What stands between backticks in the prose, on one line each."""
        return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", self.prose)]

    @cached_property
    def links(self) -> list[str]:
        """Where links and images lead."""
        return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]+`", "", self.prose))

    @cached_property
    def anchors(self) -> set[str]:
        """What links to its headings end with, as GitHub makes it."""
        headings = _HEADING.findall(self.prose)
        plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
        return {heading.replace(" ", "-") for heading in plain}


_BESIDE_DOCS = ("README.md", "CHANGELOG.md", "SECURITY.md")
PAGES = [
    Page(path.relative_to(ROOT))
    for path in (*map(ROOT.joinpath, _BESIDE_DOCS), *sorted(ROOT.glob("docs/*.md")))
]
"""README, the changelog, security, and all pages in docs."""
