"""The official OpenAI client against a server in another process."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import torch
from conftest_serve import DIALOGUES, Server

from wuxing.core.artifact import Artifact
from wuxing.core.exchange import ExchangeLog
from wuxing.model.files import load_network
from wuxing.text.tokenizer import Tokenizer


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{server.url}/v1", api_key=server.key, max_retries=0, http_client=httpx.Client(trust_env=False)
    ) as client:
        yield client


def user(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def exchanges(server: Server) -> dict[str, Any]:
    return {exchange.id: exchange for exchange in ExchangeLog(server.home, "tiny").exchanges()}


def test_models(client: openai.OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == "tiny" and client.models.retrieve("tiny").id == "tiny"
    assert client.models.retrieve("release/tiny@v3").model_dump()["artifact"] == "release/tiny@v3"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("huge")


def test_an_answer_is_the_models_own_greedy_one(client: openai.OpenAI, server: Server, release: Artifact) -> None:
    network = load_network(release.path / "model")
    tokenizer = Tokenizer.load(release.path / "model")
    question, expected = DIALOGUES[1]
    ids = tokenizer.encode_chat(user(question))
    reply: list[int] = []
    with torch.inference_mode():
        while tokenizer.end_of_turn_id not in reply:
            reply.append(int(network(torch.tensor([ids + reply]))[0, -1].argmax()))
    raw = client.chat.completions.with_raw_response.create(model="tiny", messages=user(question), temperature=0)
    answer = raw.parse()
    assert answer.choices[0].message.content == tokenizer.decode(reply) == expected
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (len(ids), len(reply))
    assert raw.headers["x-wuxing-artifact"] == "release/tiny@v3"
    kept = exchanges(server)[answer.id]
    assert (kept.reply, kept.messages, kept.finish) == (expected, user(question), "stop")
    assert (kept.artifact, kept.model, kept.key) == ("release/tiny@v3", release.content, "first")
    assert kept.template == tokenizer.template_digest
    assert kept.signals["reply_tokens"] == len(reply) and kept.signals["mean_logprob"] < 0


@pytest.mark.parametrize("question,expected", DIALOGUES)
def test_stream_joins_to_the_answer(client: openai.OpenAI, question: str, expected: str) -> None:
    chunks = list(
        client.chat.completions.create(
            model="tiny",
            messages=user(question),
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
            logprobs=True,
        )
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == expected and len([piece for piece in pieces if piece]) >= 2
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "stop" and chunks[-1].choices == []
    usage = chunks[-1].usage
    assert usage is not None
    entries = [e for c in chunks for choice in c.choices if choice.logprobs for e in choice.logprobs.content or []]
    assert len(entries) == usage.completion_tokens - 1  # the stop token has no text
    assert b"".join(bytes(entry.bytes or []) for entry in entries).decode() == expected
    assert {chunk.id for chunk in chunks} == {chunks[0].id}


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="tiny", prompt="one two three", temperature=0, max_tokens=5, logprobs=0)
    choice = answer.choices[0]
    assert choice.finish_reason == "length" and answer.usage and answer.usage.completion_tokens == 5
    assert choice.logprobs and choice.logprobs.tokens and "".join(choice.logprobs.tokens) == choice.text
    streamed = client.completions.create(model="tiny", prompt="one two three", temperature=0, max_tokens=5, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == choice.text
    default = client.completions.create(model="tiny", prompt=["one", "two"], temperature=1.0, seed=1)
    assert [c.index for c in default.choices] == [0, 1]
    assert default.usage and default.usage.completion_tokens <= 32


def test_token_ids_are_a_prompt(client: openai.OpenAI, release: Artifact) -> None:
    ids = Tokenizer.load(release.path / "model").encode("one two three")
    by_text = client.completions.create(model="tiny", prompt="one two three", temperature=0)
    by_ids = client.completions.create(model="tiny", prompt=ids, temperature=0)
    assert by_text.choices[0].text == by_ids.choices[0].text


def test_stop_texts(client: openai.OpenAI) -> None:
    for stop in ("five", ["five", "nine"], ["ve s"]):
        answer = client.chat.completions.create(model="tiny", messages=user("Count"), temperature=0, stop=stop)
        text = DIALOGUES[4][1]
        expected = text[: min(text.find(s) for s in ([stop] if isinstance(stop, str) else stop))]
        assert answer.choices[0].message.content == expected and answer.choices[0].finish_reason == "stop"


def test_n_and_seed(client: openai.OpenAI, server: Server) -> None:
    def sample(seed: int, n: int) -> list[str]:
        answer = client.chat.completions.create(
            model="tiny", messages=user("Count"), temperature=2.0, seed=seed, n=n, max_tokens=24
        )
        ids = [answer.id, *(f"{answer.id}-{index}" for index in range(1, n))]
        kept = exchanges(server)
        assert [kept[name].reply for name in ids] == [choice.message.content for choice in answer.choices]
        return [choice.message.content or "" for choice in answer.choices]

    four = sample(7, 4)
    assert four == sample(7, 4) and four[:1] == sample(7, 1)
    assert len(set(four)) == 4 and four != sample(8, 4)


def test_length_and_top_p(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="tiny", messages=user("Count"), temperature=0, max_completion_tokens=3
    )
    assert answer.choices[0].finish_reason == "length" and answer.usage and answer.usage.completion_tokens == 3
    greedy = client.chat.completions.create(model="tiny", messages=user("Hello"), temperature=2, top_p=0)
    assert greedy.choices[0].message.content == DIALOGUES[0][1]


def test_errors_are_the_clients_own_classes(client: openai.OpenAI, server: Server) -> None:
    with pytest.raises(openai.BadRequestError) as bad:
        client.chat.completions.create(model="tiny", messages=user("Hello"), temperature=3)
    assert (bad.value.code, bad.value.param, bad.value.type) == (
        "invalid_value",
        "temperature",
        "invalid_request_error",
    )
    with pytest.raises(openai.BadRequestError) as unknown:
        client.chat.completions.create(model="tiny", messages=user("Hello"), extra_body={"temprature": 1})
    assert unknown.value.code == "unknown_parameter"
    with pytest.raises(openai.BadRequestError, match="context"):
        client.chat.completions.create(model="tiny", messages=user("Hello " * 3000))
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt-7", messages=user("Hello"))
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wx-wrong").models.list()


def test_eight_streams_at_once_equal_their_solo_answers(server: Server) -> None:
    questions = [question for question, _ in DIALOGUES] + ["Count to", "Hello you"]

    async def main() -> tuple[list[str], list[str]]:
        async with openai.AsyncOpenAI(
            base_url=f"{server.url}/v1", api_key=server.key, http_client=httpx.AsyncClient(trust_env=False)
        ) as client:

            async def ask(question: str) -> str:
                stream = await client.chat.completions.create(
                    model="tiny", messages=user(question), temperature=0, max_tokens=60, stream=True
                )
                return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

            solo = [await ask(question) for question in questions]
            return solo, list(await asyncio.gather(*map(ask, questions)))

    solo, together = asyncio.run(main())
    assert together == solo and all(solo)


def test_a_client_that_leaves_frees_its_row(client: openai.OpenAI, server: Server) -> None:
    before = {name for name, kept in exchanges(server).items() if kept.finish == "cancelled"}
    for stream in (True, False):
        if stream:
            answer = client.chat.completions.create(
                model="tiny", messages=user("Sing"), temperature=0, n=8, max_tokens=1900, stream=True
            )
            next(iter(answer))
            answer.close()
        else:
            asked = {"model": "tiny", "messages": user("Sing"), "temperature": 0, "n": 8, "max_tokens": 1900}
            hang_up(server, json.dumps(asked), lambda: server.metric("wuxing_rows_in_use") > 0)
        wait_for(lambda: server.metric("wuxing_rows_in_use") == 0, 60)
        assert server.metric("wuxing_queue") == 0
    cancelled = {name for name, kept in exchanges(server).items() if kept.finish == "cancelled"} - before
    assert len(cancelled) >= 2


def hang_up(server: Server, body: str, when: Callable[[], bool]) -> None:
    """Ask without streaming, and go away once that has begun."""
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.key}\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        wait_for(when, 60)


def wait_for(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the server did not get there in time"
        time.sleep(0.02)


def test_feedback(client: openai.OpenAI, server: Server) -> None:
    answer = client.chat.completions.create(model="tiny", messages=user("Hello"), temperature=0)
    with server.client() as plain:
        for thumb, comment in (("down", "too short"), ("up", "fine after all 好")):
            done = plain.post("/v1/feedback", json={"exchange": answer.id, "thumb": thumb, "comment": comment})
            assert done.status_code == 200
        wrong = {
            404: {"exchange": "chatcmpl-unknown", "thumb": "up"},
            400: {"exchange": answer.id, "thumb": "sideways"},
        }
        for status, body in wrong.items():
            assert plain.post("/v1/feedback", json=body).status_code == status
        assert plain.post("/v1/feedback", json={"exchange": answer.id, "thumb": "up", "by": 1}).status_code == 400
    judgement = ExchangeLog(server.home, "tiny").judgements()[answer.id]
    assert (judgement.thumb, judgement.comment, judgement.key) == ("up", "fine after all 好", "first")


def test_readers_of_another_process_see_whole_lines_only(server: Server, client: openai.OpenAI) -> None:
    seen = set()
    for _ in range(20):
        client.chat.completions.create(model="tiny", messages=user("Hello"), temperature=0, max_tokens=2)
        seen.add(len(exchanges(server)))
    assert len(seen) == 20


def test_home_holds_what_it_should(server: Server) -> None:
    assert {path.name for path in Path(server.home).iterdir()} == {
        "keys.json",
        ".keys.lock",
        "deployments",
        "exchanges",
    }
