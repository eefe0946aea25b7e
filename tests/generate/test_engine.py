"""The engine against a plain forward pass for every token, alone against in company, and its rows used again."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from wuxing.core.error import UsageError, WuxingError
from wuxing.generate import packed
from wuxing.generate.engine import Engine, Event, Reply, Request
from wuxing.model.architecture import Architecture, resolve
from wuxing.model.network import Network

VOCABULARY, POSITIONS = 97, 64
CLOSE = 2e-4
"""fp32 sums in another order, through three layers; logits here are spread over some 20 nats."""


def small(family: str = "qwen3", seed: int = 7, **changes: Any) -> Network:
    architecture = Architecture(family=family, size="300k", width=64, layers=3, max_positions=POSITIONS)
    network = Network(resolve(architecture, VOCABULARY) | changes).initialise(seed)
    with torch.no_grad():
        network.head_VD.mul_(4)  # a trained model is sure of itself and looks at what came before; a new one neither
        for name, parameter in network.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.mul_(8)
            if name.endswith(("norm.weight", ".bias")):
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    return network


def some_requests(number: int, seed: int = 1, **settings: Any) -> list[Request]:
    draw = random.Random(seed)
    prompts = [[draw.randrange(VOCABULARY) for _ in range(draw.randint(1, 30))] for _ in range(number)]
    return [Request(str(n), prompt, draw.randint(1, 20), seed=n, **settings) for n, prompt in enumerate(prompts)]


def replies(engine: Engine, requests: list[Request]) -> dict[str, Reply]:
    return {reply.id: reply for reply in engine.generate(requests)}


@torch.no_grad()
def plain_logprobs(network: Network, prompt: list[int], tokens: list[int]) -> torch.Tensor:
    """The slow truth: (tokens, vocabulary) log-probs, one whole forward pass per token."""
    rows = [network(torch.tensor([prompt + tokens[:n]]))[0, -1] for n in range(len(tokens))]
    return torch.stack(rows).log_softmax(-1)


MODELS = {
    "qwen3": lambda: small(),
    "llama": lambda: small("llama"),
    "biased": lambda: small("llama", attention_bias=True, mlp_bias=True),
    "untied": lambda: small(tie_word_embeddings=False),
}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("model", MODELS)
def test_cached_equals_uncached(model: str, temperature: float) -> None:
    network, requests = MODELS[model](), some_requests(7, temperature=temperature)
    found = replies(Engine(network, max_rows=3, precision="fp32"), requests)
    for request in requests:
        reply = found[request.id]
        truth = plain_logprobs(network, request.tokens, reply.tokens)
        chosen = truth.gather(1, torch.tensor(reply.tokens)[:, None])[:, 0]
        assert_close(torch.tensor(reply.logprobs), chosen, rtol=0, atol=CLOSE)
        if temperature == 0:
            assert (truth.max(-1).values - chosen).max() <= CLOSE


def test_without_packing_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines whose PyTorch cannot pack weights take the plain product."""
    network, requests = small(), some_requests(5, temperature=0.0)
    first = replies(Engine(network, precision="fp32"), requests)
    monkeypatch.setitem(packed._PACKS, torch.float32, False)
    second = replies(Engine(network, precision="fp32"), requests)
    assert {k: r.tokens for k, r in first.items()} == {k: r.tokens for k, r in second.items()}


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {}, {"temperature": 0.7, "top_p": 0.9, "top_k": 20}])
def test_company_changes_nothing(settings: dict[str, Any]) -> None:
    """A request draws the same tokens alone, among strangers, and whatever row it lands on."""
    network, requests = small(), some_requests(9, **settings)
    together = replies(Engine(network, max_rows=4, precision="fp32"), requests)
    backwards = replies(Engine(network, max_rows=7, precision="fp32"), requests[::-1])
    for request in requests:
        alone = replies(Engine(network, max_rows=1, precision="fp32"), [request])[request.id]
        for other in (together[request.id], backwards[request.id]):
            assert other.tokens == alone.tokens and other.finish == alone.finish
            assert_close(torch.tensor(other.logprobs), torch.tensor(alone.logprobs), rtol=0, atol=CLOSE)


def test_equal_prompts_share_their_computation_and_differ_by_seed() -> None:
    network = small()
    requests = [Request(str(n), [5, 6, 7], 12, seed=n % 3) for n in range(9)]
    found = replies(Engine(network, max_rows=6, precision="fp32"), requests)
    assert found["0"].tokens == found["3"].tokens == found["6"].tokens
    assert len({tuple(reply.tokens) for reply in found.values()}) == 3
    alone = replies(Engine(network, precision="fp32"), [requests[1]])["1"]
    assert found["1"].tokens == found["7"].tokens == alone.tokens


def test_more_requests_than_rows_are_drawn_as_rows_become_free() -> None:
    drawn: list[int] = []

    def source() -> Any:
        for n, request in enumerate(some_requests(20)):
            drawn.append(n)
            yield request

    engine = Engine(small(), max_rows=3, precision="fp32")
    stream = engine.generate(source())
    next(stream)
    assert len(drawn) < 12
    assert 1 + len(list(stream)) == 20 and not engine.busy


def test_stop_tokens_end_a_reply_and_are_part_of_it() -> None:
    network, request = small(), Request("a", [1, 2, 3], 20, temperature=0.0)
    whole = replies(Engine(network, precision="fp32"), [request])["a"]
    stop = whole.tokens[4]
    place = whole.tokens.index(stop)
    cut = Request("a", [1, 2, 3], 20, temperature=0.0, stop_tokens=(stop,))
    reply = replies(Engine(network, precision="fp32"), [cut])["a"]
    assert (reply.tokens, reply.finish) == (whole.tokens[: place + 1], "stop") and whole.finish == "length"


def test_events_tell_every_token_once() -> None:
    network, requests = small(), some_requests(6)
    engine = Engine(network, max_rows=2, precision="fp32")
    for request in requests:
        engine.submit(request)
    events: list[Event] = []
    while engine.busy:
        events += engine.step()
    expected = replies(Engine(network, max_rows=2, precision="fp32"), requests)
    for request in requests:
        mine = [event for event in events if event.id == request.id]
        reply = expected[request.id]
        assert [(e.token, e.logprob) for e in mine] == list(zip(reply.tokens, reply.logprobs, strict=True))
        assert [e.finish for e in mine] == [None] * (len(mine) - 1) + [reply.finish]


def test_cancelled_rows_are_free_and_leave_no_trace() -> None:
    """The running, the waiting and the last; the row of the cancelled serves another, which reads nothing of it."""
    network, requests = small(), some_requests(8)
    expected = replies(Engine(network, precision="fp32"), requests)
    engine = Engine(network, max_rows=3, precision="fp32")
    found: dict[str, Reply] = {}
    engine.submit(Request("victim", [9] * 20, 30))
    engine.step()
    engine.cancel("victim")
    assert engine.step() == [] and not engine.busy and engine.running == 0
    for reply in engine.generate([Request("late", [3] * 25, 30), *requests]):
        found[reply.id] = reply
        engine.cancel("late")
    assert found["late"].finish == "cancelled" and found["victim"].finish == "cancelled"
    assert {k: found[k].tokens for k in expected} == {k: r.tokens for k, r in expected.items()}


def test_a_caller_who_stops_listening_leaves_nothing_behind() -> None:
    engine, requests = Engine(small(), max_rows=2, precision="fp32"), some_requests(6)
    for reply in engine.generate(requests):
        assert reply.tokens
        break
    fresh = Engine(small(), max_rows=2, precision="fp32")
    assert not engine.busy and replies(engine, requests) == replies(fresh, requests)


def test_cancelling_what_waits_or_is_unknown() -> None:
    engine = Engine(small(), max_rows=1, precision="fp32")
    for name in "ab":
        engine.submit(Request(name, [1], 5))
    engine.step()
    engine.cancel("b")
    engine.cancel("nobody")
    events = [event for _ in range(6) for event in engine.step()]
    assert {event.id for event in events} == {"a"} and not engine.busy


def test_changed_weights_are_never_missed() -> None:
    """As in reinforcement learning: the optimizer changes the network in place between two calls."""
    network, other = small(), small(seed=8)
    requests = some_requests(4, temperature=0.0)
    engine = Engine(network, precision="fp32")
    before, scores = replies(engine, requests), engine.score([([1, 2], [3, 4])])
    for parameter, new in zip(network.parameters(), other.parameters(), strict=True):
        parameter.data.copy_(new.data)  # not seen by PyTorch's version counters
    after = replies(engine, requests)
    assert {k: r.tokens for k, r in after.items()} == {
        k: r.tokens for k, r in replies(Engine(other, precision="fp32"), requests).items()
    }
    assert after["0"].tokens != before["0"].tokens
    assert engine.score([([1, 2], [3, 4])]) == Engine(other, precision="fp32").score([([1, 2], [3, 4])]) != scores


def test_a_full_row_ends_a_reply() -> None:
    reply = replies(Engine(small(), precision="fp32"), [Request("a", [1] * 60, 100)])["a"]
    assert (len(reply.tokens), reply.finish) == (POSITIONS - 60, "length")
    truth = plain_logprobs(small(), [1] * 60, reply.tokens)
    assert_close(
        torch.tensor(reply.logprobs), truth.gather(1, torch.tensor(reply.tokens)[:, None])[:, 0], atol=CLOSE, rtol=0
    )


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request("a", [1] * 64, 5), "the prompt has 64 tokens and the model takes 64 with its answer. Shorten"),
        (Request("a", [], 5), "empty prompt"),
        (Request("a", [97], 5), "outside the vocabulary of 97"),
        (Request("a", [-1], 5), "outside the vocabulary of 97"),
        (Request("a", [1], 0), "max_tokens is 0"),
        (Request("a", [1], 1, temperature=-1), "no way to sample"),
        (Request("a", [1], 1, temperature=float("nan")), "no way to sample"),
        (Request("a", [1], 1, top_p=0), "no way to sample"),
        (Request("a", [1], 1, top_k=-1), "no way to sample"),
    ],
)
def test_impossible_requests_are_refused(request_: Request, message: str) -> None:
    engine = Engine(small(), precision="fp32")
    with pytest.raises(WuxingError, match=message):
        engine.submit(request_)
    assert not engine.busy


def test_impossible_engines_are_refused() -> None:
    with pytest.raises(UsageError, match='precision "bf15" is unknown. Did you mean "bf16"'):
        Engine(small(), precision="bf15")
    with pytest.raises(UsageError, match="65 is more than the 64 positions"):
        Engine(small(), max_tokens=65)


def test_bf16_is_close() -> None:
    network, requests = small(), some_requests(6)
    found = replies(Engine(network, precision="bf16"), requests)
    differences = []
    for request in requests:
        reply = found[request.id]
        truth = plain_logprobs(network, request.tokens, reply.tokens)
        chosen = truth.gather(1, torch.tensor(reply.tokens)[:, None])[:, 0]
        differences += (torch.tensor(reply.logprobs) - chosen).abs().tolist()
    assert sum(differences) / len(differences) < 0.15  # 8 bits of mantissa on logits of about 20


def test_scores_equal_a_plain_pass_with_shared_and_single_prompts() -> None:
    network, draw = small(), random.Random(4)

    def line(low: int, high: int) -> list[int]:
        return [draw.randrange(VOCABULARY) for _ in range(draw.randint(low, high))]

    shared = [line(1, 20) for _ in range(3)]
    pairs = [(draw.choice(shared), line(1, 12)) for _ in range(14)] + [(line(1, 30), line(1, 30)) for _ in range(6)]
    pairs.append(([3], []))
    draw.shuffle(pairs)
    scores = Engine(network, precision="fp32").score(pairs)
    for (prompt, tokens), score in zip(pairs, scores, strict=True):
        assert len(score) == len(tokens)
        if tokens:
            truth = plain_logprobs(network, prompt, tokens).gather(1, torch.tensor(tokens)[:, None])[:, 0]
            assert_close(torch.tensor(score), truth, rtol=0, atol=CLOSE)


def test_scores_of_what_was_generated_are_its_logprobs() -> None:
    requests = some_requests(6)
    engine = Engine(small(), precision="fp32")
    found = replies(engine, requests)
    scores = engine.score([(request.tokens, found[request.id].tokens) for request in requests])
    for request, score in zip(requests, scores, strict=True):
        assert_close(score, found[request.id].logprobs, rtol=0, atol=CLOSE)


def test_impossible_scores_are_refused() -> None:
    engine = Engine(small(), precision="fp32")
    assert len(engine.score([([1] * 10, [2] * 55)])[0]) == 55
    with pytest.raises(WuxingError, match="66 tokens is longer than the 64 positions"):
        engine.score([([1] * 10, [2] * 56)])
    with pytest.raises(WuxingError, match="prompt to score is empty"):
        engine.score([([], [2])])
