"""Golden stories. `REWRITE_STORIES=1 pytest tests/scenarios` writes the answers anew; read the
diff before you keep it."""

import os
from pathlib import Path

import pytest

from tests.scenarios.storyteller import Storyteller

STORIES = sorted(Path(__file__).parent.glob("*.txt"))


def retell(text: str) -> str:
    """The story with the answers that the shop gives now."""
    teller, told = Storyteller(), []
    for paragraph in text.strip().split("\n\n"):
        lines = paragraph.split("\n")
        asked = lines[: lines.index("----")] if "----" in lines else lines
        if all(line.startswith("#") for line in asked):
            told.append(paragraph)
            continue
        answers = teller.play([line for line in asked if not line.startswith("#")])
        told.append("\n".join([*asked, "----", *answers]))
    return "\n\n".join(told) + "\n"


@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.stem)
def test_the_story_goes_as_it_always_went(story: Path) -> None:
    text = story.read_text()
    now = retell(text)
    if os.environ.get("REWRITE_STORIES"):
        story.write_text(now)
        return
    assert now == text


def test_there_are_stories() -> None:
    assert len(STORIES) >= 8
