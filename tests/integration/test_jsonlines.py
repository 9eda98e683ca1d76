"""The program jsonlines, on a real Kafka."""

import json

import pytest
from services.crew import Crew, policy
from services.plant import Plant


@pytest.mark.kafka
def test_events_stand_in_the_file_once_each_after_a_restart(real_plant: Plant) -> None:
    path = real_plant.root / "events.jsonl"
    crew = Crew(
        real_plant,
        policy(),
        "[consumers.jsonlines]",
        f'path = "{path}"',
        f'group = "{real_plant.prefix}"',
    )
    try:
        first = crew.start("jsonlines", ready="metrics")
        ids = crew.tell("ban", *(f"203.0.113.{it}" for it in range(20)))
        crew.until(lambda: path.exists() and len(path.read_text().splitlines()) == 20)
        first.kill()
        crew.start("jsonlines", ready="metrics")
        ids += crew.tell("unban", *(f"203.0.113.{it}" for it in range(20)))
        crew.until(lambda: set(ids) <= set(_ids(path.read_text())))
    finally:
        crew.stop()


def _ids(text: str) -> list[str]:
    found = [json.loads(line)["event"] for line in text.splitlines()]
    return [it["receipt"]["event_id"] for it in found if "receipt" in it]
