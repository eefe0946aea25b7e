"""What the page of an augmentation says, in English and Chinese."""

from __future__ import annotations

from wuxing.page.words import Texts

TEXTS: Texts = {
    "title": ("Augmentation {name}", "数据增强 {name}"),
    "subtitle": (
        "from {data}; seed {seed}; the same record, seed and copy number always give the same copy",
        "来自 {data}；种子 {seed}；同一记录、种子与副本序号总得到同一副本",
    ),
    "other": ("中文", "English"),
    "card.train": ("records to train on", "训练记录"),
    "card.copies": ("copies", "副本"),
    "card.held_out": ("held out, untouched", "留出集（未改动）"),
    "note.copies": (
        "{number} of each record asked for; {share} differ from it",
        "每条记录要求 {number} 份；{share} 与之不同",
    ),
    "numbers": ("all numbers", "全部数值"),
    "section.operations": ("Operations", "操作"),
    "section.samples": ("Before and after", "前后对照"),
    "section.fates": ("Fates and checks", "去向与检查"),
    "column.operation": ("operation", "操作"),
    "column.settings": ("settings", "设置"),
    "column.copies": ("copies changed", "改变的副本"),
    "column.share": ("of all copies", "占全部副本"),
    "column.copy": ("copy", "副本"),
    "column.numbers": ("numbers", "数值"),
    "column.fate": ("fate", "去向"),
    "column.records": ("records", "记录数"),
    "column.check": ("check", "检查"),
    "column.verdict": ("verdict", "结论"),
    "column.note": ("what it says", "说明"),
    "passed": ("passed", "通过"),
    "failed": ("failed", "未通过"),
    "measured": ("measured", "测得"),
    "before": ("before", "之前"),
    "after": ("after", "之后"),
    "soft": ("label {label}", "标签 {label}"),
    "samples.drawn": (
        "{count} copies, drawn by a hash of their ids; all operations with their numbers stand in each copy's meta.",
        "按编号的哈希抽取 {count} 份副本；每份副本的 meta 中记有全部操作及其数值。",
    ),
    "sound": ("Spectrogram above (dark: loud), waveform below.", "上为声谱图（深色为强），下为波形。"),
    "too_long": ("too long to be played here", "过长，不在此播放"),
}
