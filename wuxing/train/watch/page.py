"""A run as a page: self-contained, English or Chinese, and written again while the job runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from wuxing.core.amount import bytes_text
from wuxing.page.block import Card, Figure, Paragraph, Part, Plot, Report, Section, Table
from wuxing.page.chart import Course, draw_apart
from wuxing.page.number import format_figure, format_percent
from wuxing.page.render import render_html
from wuxing.page.words import Texts, Words
from wuxing.train.watch.view import View

AGAIN_SECONDS = 5
TEXTS: Texts = {
    "title": ("{name}: training", "{name}：训练"),
    "running": ("running", "正在运行"),
    "renewed": ("running; this page renews itself", "正在运行；本页自动更新"),
    "stopped": ("stopped; the same command goes on", "已停止；同一条命令可以继续"),
    "finished": ("finished", "已完成"),
    "step": ("step", "步"),
    "of": ("of {steps}", "共 {steps} 步"),
    "left": ("time left", "剩余时间"),
    "between": ("steps that grow later and measurements counted in", "已计入之后变大的步和评测"),
    "speed": ("tokens per second", "每秒词元数"),
    "share": ("{share} of the products' rate", "达到乘法速度的 {share}"),
    "unknown": ("the machine's rate is not measured: wuxing doctor", "尚未测量本机速度：wuxing doctor"),
    "memory": ("memory", "内存"),
    "waited": ("{share} of the time waiting for data", "{share} 的时间在等待数据"),
    "course": ("Course", "过程"),
    "held_out": ("Held-out data", "留出数据"),
    "events": ("Events", "事件"),
    "loss": ("training loss", "训练损失"),
    "reward": ("reward", "奖励"),
    "learning_rate": ("learning rate", "学习率"),
    "clip": ("gradient clipping", "梯度裁剪"),
    "steps": ("steps", "步数"),
    "gradient_norm": ("gradient norm", "梯度范数"),
    "tokens_per_second": ("tokens per second", "每秒词元数"),
    "memory_bytes": ("memory, GB", "内存（GB）"),
    "bits_per_byte": ("bits per byte", "每字节比特数"),
    "masked_bits_per_byte": ("bits per byte, masked tokens", "被遮词元的每字节比特数"),
    "accuracy": ("accuracy", "正确率"),
    "macro_f1": ("macro F1", "宏平均 F1"),
    "what": ("what", "事件"),
    "detail": ("detail", "详情"),
    "leap": ("the loss leapt", "损失突跳"),
    "lost": ("a process was lost", "进程丢失"),
    "went_on": ("{who}; {processes} processes went on", "{who}；由 {processes} 个进程继续"),
    "going_on": ("{who}; all processes start anew", "{who}；所有进程正在重新启动"),
    "ended": ("{who}; the same command goes on from the last save", "{who}；同一条命令可从最近的保存处继续"),
    "nothing": (
        "No loss leapt, no process was lost and no knob was turned.",
        "没有突跳、进程丢失或调整。",
    ),
}


def run_page(view: View, language: str = "en", renew: bool = False) -> str:
    """The page; with `renew` a browser loads it again every few seconds."""
    words = Words(language, TEXTS)
    source = f"model/{view.name} log.jsonl"
    sections = [
        Section("course", words("course"), [Part(None, [_course(view, words, source)])]),
        Section("held-out", words("held_out"), [Part(None, [_held_out(view, words, source)])]),
        Section("events", words("events"), [Part(None, [_events(view, words, source)])]),
    ]
    report = Report(
        title=words("title").format(name=view.name),
        subtitle=words("renewed" if renew and view.state == "running" else view.state),
        language=language,
        cards=_cards(view, words, source),
        sections=sections,
        sources=[source],
        numbered=False,
    )
    page = render_html(report, words)
    again = f'<meta http-equiv="refresh" content="{AGAIN_SECONDS}">'
    return page.replace("<title>", f"{again}\n<title>", 1) if renew and view.state == "running" else page


def _cards(view: View, words: Words, source: str) -> list[Card]:
    share = view.utilisation
    reached = words("unknown") if share is None else words("share").format(share=format_percent(share))
    waited = words("waited").format(share=format_percent(view.waited))
    cards = [
        Card(words("step"), Figure(f"{view.step:,}", source), [words("of").format(steps=f"{view.steps:,}")]),
        Card(words("speed"), Figure(f"{view.tokens_per_second:,.0f}", source), [reached]),
        Card(words("memory"), Figure(bytes_text(view.last.get("memory_bytes", 0)), source), [waited]),
    ]
    if view.left is not None:
        low, high = view.left
        cards.insert(1, Card(words("left"), Figure(f"{clock(low)} – {clock(high)}", source), [words("between")]))
    return cards


def clock(seconds: float) -> str:
    """`1:02:03` or `4:05`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


def _course(view: View, words: Words, source: str) -> Plot:
    panels = []
    for key, points in view.curves.items():
        if points:
            scale = 1e9 if key == "memory_bytes" else 1
            panels.append(Course(words(key), [("", [(float(x), y / scale) for x, y in points])]))
    svg = draw_apart(panels, words("step"))
    return Plot("course", words("course"), [source], svg)


def _held_out(view: View, words: Words, source: str) -> Plot:
    name = words.get(view.metric, view.metric)
    points = [(float(step), value) for step, value in view.measured]
    svg = draw_apart([Course(name, [("", points)], marks=True)], words("step"))
    return Plot("held-out", name, [source], svg)


def _events(view: View, words: Words, source: str) -> Any:
    rows: list[Sequence[Sequence[Any]]] = []
    for lost in view.lost[-50:]:
        form = "went_on" if lost["step"] is not None else "going_on" if lost["replaced"] else "ended"
        step: list[Any] = [Figure(str(lost["step"]), source)] if lost["step"] is not None else ["–"]
        rows.append([step, [words("lost")], [words(form).format(**lost)]])
    for leap in view.leaps[-50:]:
        rows.append([[Figure(str(leap["step"]), source)], [words("leap")], [", ".join(leap["records"][:4])]])
    for knob in view.adjustments:
        said = f"{format_figure(float(knob['value']))} ({knob['who']}: {knob['why']})"
        first = Figure(str(knob["step"] + 1), source)  # as the terminal says it
        rows.append([[first], [words.get(knob["knob"], knob["knob"])], [said]])
    if not rows:
        return Paragraph([words("nothing")])
    return Table([words("step"), words("what"), words("detail")], rows)
