"""What counts as seen in training, and through which ancestors."""

from typing import Any

from small_world import ARITHMETIC, Shelf

from wuxing.core.record import Record
from wuxing.evaluate.lineage import trace
from wuxing.evaluate.overlap import Index, Item, items_of_corpus, items_of_task, words_of
from wuxing.task.task import Example, load_task
from wuxing.task.task_kind import TaskKind

LONG = "the quick brown fox jumps over the lazy dog while seven wise owls watch from an old oak tree"
CHINESE = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏"


def talk(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def find(shelf: Shelf, rows: list[Record], items: list[Item], ngram: int = 5, threshold: float = 0.5) -> Any:
    corpus = shelf.corpus("rows", {"train": rows})
    return {match.item: (match.how, round(match.share, 2)) for match in Index(items, ngram, threshold).matches(corpus)}


def test_exact_texts_are_found_whatever_their_case_and_spaces(shelf: Shelf) -> None:
    items = items_of_corpus("held", [Record("a", "x", LONG), Record("b", "x", "something else entirely, not there")])
    assert find(shelf, [Record("r", "x", "  " + LONG.upper() + ".\n")], items) == {"a": ("exact", 1.0)}


def test_near_texts_are_reported_with_their_share(shelf: Shelf) -> None:
    items = items_of_corpus("held", [Record("a", "x", LONG)])
    words = LONG.split()
    half = Record("r", "x", "before " + " ".join(words[:14]) + " and after")
    assert find(shelf, [half], items) == {"a": ("near", round(10 / 15, 2))}
    assert find(shelf, [half], items, threshold=0.7) == {}
    assert find(shelf, [Record("r", "x", " ".join(reversed(words)))], items) == {}


def test_chinese_is_compared_character_by_character(shelf: Shelf) -> None:
    assert words_of("GPU很快 ok") == ["gpu", "很", "快", "ok"]
    items = items_of_corpus("held", [Record("a", "x", CHINESE)])
    assert find(shelf, [Record("r", "x", "千字文：" + CHINESE[:16])], items)["a"][0] == "near"


def test_the_strongest_match_of_an_item_counts(shelf: Shelf) -> None:
    items = items_of_corpus("held", [Record("a", "x", LONG)])
    rows = [Record("r", "x", LONG + " and more"), Record("s", "x", LONG), Record("t", "x", LONG + " again")]
    assert find(shelf, rows, items) == {"a": ("exact", 1.0)}


def test_a_question_asked_in_training_is_a_leak_even_with_another_answer(shelf: Shelf) -> None:
    items = [Item("task", "a", ["What is 2 + 2?\n4", "What is 2 + 2?"])]
    assert find(shelf, [Record("r", "x", None, talk("what is 2 + 2", "Five."))], items) == {"a": ("exact", 1.0)}
    assert find(shelf, [Record("r", "x", None, talk("What is 2 - 2?", "0"))], items) == {}


def test_the_same_problem_in_other_words_and_order_is_found(shelf: Shelf) -> None:
    arithmetic = shelf.make(TaskKind(), "arithmetic", ARITHMETIC)
    task = load_task(arithmetic.path)
    a, b = next(e.meta["operands"] for e in task.examples("train") if e.meta["operation"] == "add")
    meta = {"answer": str(a + b), "problem": f"add:{min(a, b)},{max(a, b)}"}
    reworded = Example("q", talk(f"Tell me {b} and {a} together", str(a + b)), str(a + b), meta)
    other = Example("p", talk("Tell me 900 and 900 together", "1800"), "1800", {"problem": "add:900,900"})
    matches = Index(items_of_task("arithmetic", task, [reworded, other]), 13, 0.5).matches(arithmetic)
    assert [(match.item, match.how) for match in matches] == [("q", "problem")]


def test_lineage_follows_every_start_from_and_leaves_tokenizers_out(shelf: Shelf) -> None:
    corpora = {name: shelf.corpus(name, {}) for name in ("web", "talks", "words")}
    tokenizer = shelf.sign(shelf.draft("tokenizer", "bpe"), {"corpus": corpora["words"]})
    tokens = shelf.sign(shelf.draft("tokens", "web"), {"data": corpora["web"], "tokenizer": tokenizer})
    base = shelf.sign(shelf.draft("model", "base"), {"data.web": tokens, "tokenizer": tokenizer})
    chat = shelf.sign(shelf.draft("model", "chat"), {"start_from": base, "data.talks": corpora["talks"]})
    solver = shelf.sign(shelf.draft("model", "solver"), {"start_from": chat})
    lineage = trace(solver, shelf.home)
    assert lineage.ids == ["corpus/talks@v1", "corpus/web@v1"] and lineage.missing == []
    (chat.path / "record.json").unlink()
    lineage = trace(solver, shelf.home)
    assert lineage.ids == [] and lineage.missing == ["model/chat@v1"]
    assert trace(solver, shelf.home, known=[chat]).ids == ["corpus/talks@v1", "corpus/web@v1"]
