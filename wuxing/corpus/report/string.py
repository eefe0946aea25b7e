"""The texts of the data report by key: English, Chinese.  `{names}` are replaced by figures."""

from __future__ import annotations

from wuxing.page.words import Texts

TEXT: Texts = {
    "title": ("{name}: data report", "{name}：数据报告"),
    "subtitle": (
        "{id} · statistics {digest}. Point at a figure to see the file and place it comes from.",
        "{id} · 统计摘要 {digest}。将指针移到数字上，可见其所在文件与位置。",
    ),
    "other_language": ("中文", "English"),
    "comma": (", ", "，"),
    "yes": ("yes", "是"),
    "no": ("no", "否"),
    "median": ("median", "中位数"),
    "settings": ("Settings", "设置"),
    "of_rows": ("{share} of all rows", "占全部行的 {share}"),
    # sections
    "section.summary": ("Summary", "概要"),
    "section.origin": ("Where the data come from", "数据来源"),
    "section.fates": ("What became of every row", "每一行的去向"),
    "section.records": ("What is in it", "内容构成"),
    "section.steps": ("Cleaning", "清洗"),
    "section.drops": ("Dropped, with examples", "被丢弃的记录与示例"),
    "section.duplicates": ("Duplicates", "重复"),
    "section.privacy": ("Private data", "隐私信息"),
    "section.samples": ("Kept records", "保留的记录"),
    "section.evidence": ("Evidence", "证据"),
    "section.card": ("Data card", "数据卡"),
    "part.sizes": ("Sizes", "规模"),
    "part.languages": ("Languages", "语言"),
    "part.labels": ("Labels", "标签"),
    "part.lengths": ("Lengths", "长度"),
    "part.exact": ("Equal records", "完全相同"),
    "part.near": ("Nearly equal records", "近似相同"),
    "part.substring": ("Repeated passages", "重复片段"),
    "part.picture_sizes": ("Sizes of pictures", "图片尺寸"),
    "part.seconds": ("Lengths of sounds", "音频时长"),
    # cards and summary
    "card.rows": ("raw rows read", "读入原始行"),
    "card.sources": ("from {n} sources", "来自 {n} 个来源"),
    "card.kept": ("records kept", "保留记录"),
    "card.largest_loss": ("largest loss", "最大的损失"),
    "card.evidence": ("checks passed", "通过的检查"),
    "card.all_passed": ("every judged check passed", "所有判定项均通过"),
    "summary.text": (
        "{rows} rows went in, {kept} records ({share}) came out: {splits}. Together they hold {characters} characters "
        "({bytes}).",
        "读入 {rows} 行，得到 {kept} 条记录（{share}）：{splits}。共 {characters} 个字符（{bytes}）。",
    ),
    "summary.media": (
        "{rows} rows went in, {kept} records ({share}) came out: {splits}. Together they take {bytes}.",
        "读入 {rows} 行，得到 {kept} 条记录（{share}）：{splits}。共 {bytes}。",
    ),
    "no_warnings": ("No rule found anything to warn of.", "各条规则均未发现需要提醒之处。"),
    "warning.failed": ("A check failed: {check} is {value}.", "检查未通过：{check} 为 {value}。"),
    "warning.unreadable": (
        "{count} rows ({share}) could not be read: {fate}. Look at the source before you train on the rest.",
        "有 {count} 行（{share}）无法读取：{fate}。训练之前请先查看来源。",
    ),
    "warning.large_loss": (
        "{share} of all rows ended as “{fate}”. Read the examples below: is the rule right for these data?",
        "全部行中有 {share} 以“{fate}”告终。请阅读下面的示例：这条规则适合这些数据吗？",
    ),
    "warning.source_lost": (
        "None of the {rows} rows of {source} was kept.",
        "来源 {source} 的 {rows} 行全部未被保留。",
    ),
    "warning.source_empty": ("{source} held no row at all.", "来源 {source} 没有任何行。"),
    "warning.license": (
        "The licence of {source} is not stated. A release trained on it cannot state its own.",
        "来源 {source} 未注明许可证，在其上训练的发布也无法注明自己的许可。",
    ),
    "warning.few_held_out": (
        "{split} holds only {count} records; a measure on them has a wide interval.",
        "{split}集仅有 {count} 条记录，在其上测得的指标区间会很宽。",
    ),
    "warning.rare_label": (
        "The label {label} stands on only {count} training records.",
        "标签 {label} 在训练集中只有 {count} 条记录。",
    ),
    "warning.imbalance": (
        "Labels are uneven: {most} is {ratio} times as frequent as {least}.",
        "标签不均衡：{most} 的数量是 {least} 的 {ratio} 倍。",
    ),
    "warning.private_left": (
        "An independent check still finds private data of the kind {kind}: {count}.",
        "独立检查仍发现 {kind} 类隐私信息：{count} 处。",
    ),
    "warning.large_cluster": (
        "One record stood in the sources {size} times: {id}.",
        "有一条记录在来源中出现了 {size} 次：{id}。",
    ),
    # origins
    "origin.file": ("{n} file", "{n} 个文件"),
    "origin.files": ("{n} files", "{n} 个文件"),
    "origin.exchanges": ("answers judged by people", "经人评判的回答"),
    # columns
    "col.source": ("source", "来源"),
    "col.license": ("licence", "许可证"),
    "col.from": ("from", "出处"),
    "col.rows": ("rows", "行数"),
    "col.kept": ("kept", "保留"),
    "col.share": ("share", "占比"),
    "col.share_kept": ("share of kept", "占保留记录"),
    "col.bytes": ("size", "大小"),
    "col.digest": ("SHA-256", "SHA-256"),
    "col.fate": ("fate", "去向"),
    "col.name": ("name in files", "文件中的名称"),
    "col.split": ("split", "划分"),
    "col.records": ("records", "记录"),
    "col.documents": ("documents", "文档"),
    "col.dialogues": ("dialogues", "对话"),
    "col.images": ("pictures", "图片"),
    "col.audio": ("sounds", "音频"),
    "col.characters": ("characters", "字符"),
    "col.min": ("least", "最小"),
    "col.max": ("most", "最大"),
    "col.mean": ("mean", "平均"),
    "col.number": ("#", "#"),
    "col.step": ("step", "步骤"),
    "col.reached": ("reached it", "到达"),
    "col.changed": ("changed", "修改"),
    "col.dropped": ("dropped", "丢弃"),
    "col.found": ("found", "发现"),
    "col.kind": ("kind", "种类"),
    "col.replaced_by": ("replaced by", "替换为"),
    "col.replaced": ("replaced", "已替换"),
    "col.left": ("left (independent check)", "残留（独立检查）"),
    "col.verdict": ("verdict", "结论"),
    "col.check": ("check", "检查"),
    "col.value": ("value", "数值"),
    "col.threshold": ("asked for", "要求"),
    "col.note": ("what it is", "说明"),
    # fates
    "fate.kept": ("kept", "保留"),
    "fate.duplicate": ("equal to another", "完全重复"),
    "fate.near_duplicate": ("nearly equal to another", "近似重复"),
    "fate.filtered": ("filtered", "过滤"),
    "fate.unreadable": ("unreadable", "无法读取"),
    "fate.truncated": ("truncated", "截断"),
    "fate.other": ("all others", "其余"),
    "fates.text": (
        "Every raw row has exactly one fate, and the fates sum to the rows. From top to bottom: what was still there, "
        "and in red what left at that point.",
        "每个原始行恰有一个去向，各去向之和等于总行数。自上而下：仍在的记录，以及（红色）在该处离开的记录。",
    ),
    "stage.raw": ("raw rows", "原始行"),
    "stage.unreadable": ("reading", "读取"),
    "stage.fields": ("rows to records", "行转记录"),
    "stage.kept": ("kept", "保留"),
    # splits
    "split.train": ("train", "训练"),
    "split.validation": ("validation", "验证"),
    "split.test": ("test", "测试"),
    # plots and axes
    "plot.flow": ("From raw rows to splits", "从原始行到各划分"),
    "plot.fates_by_source": ("Fates by source", "各来源的去向"),
    "plot.languages": ("Records by language", "各语言的记录数"),
    "plot.languages_by_split": ("Languages in each split", "各划分的语言构成"),
    "plot.labels": ("Records by label", "各标签的记录数"),
    "plot.labels_by_split": ("Labels in each split", "各划分的标签构成"),
    "plot.lengths": ("Length of records; the line is the share up to each length", "记录长度；曲线为累计占比"),
    "plot.measures": (
        "{step}: what the step measured; dashed lines are its bounds, red is what lies beyond them",
        "{step}：该步骤测得的数值；虚线为界限，红色部分在界限之外",
    ),
    "plot.clusters": ("Groups by size", "按大小统计的重复组"),
    "plot.privacy": ("Private data that were replaced, by kind", "被替换的隐私信息（按种类）"),
    "plot.sizes": ("Width and height in pixels, of an even sample", "宽与高（像素），均匀抽样"),
    "plot.seconds": ("Seconds, of an even sample", "时长（秒），均匀抽样"),
    "axis.rows": ("share of rows", "占行数的比例"),
    "axis.characters": ("characters", "字符数"),
    "axis.bytes": ("bytes", "字节数"),
    "axis.width": ("width", "宽"),
    "axis.height": ("height", "高"),
    "axis.seconds": ("seconds", "秒"),
    # steps, drops, changes
    "steps.none": ("The recipe names no cleaning step.", "配方没有指定清洗步骤。"),
    "changes": ("before and after", "修改前后"),
    "drops.text": (
        "Of each fate some records, a uniform sample. What the last column of their line says is the value that "
        "broke the rule, or the record they equal.",
        "每种去向展示若干条记录（均匀抽样）。编号之后是触发规则的数值，或与之重复的记录。",
    ),
    "drops.none": ("No sample of these was kept.", "没有保留这类记录的样本。"),
    "no_text": ("(no text kept)", "（未保留文本）"),
    # duplicates
    "duplicates.none": ("No duplicates were dropped.", "没有因重复而丢弃的记录。"),
    "duplicates.exact": (
        "{dropped} records equal an earlier one but for case and space; they stand in {clusters} groups, of which the "
        "first was kept.",
        "{dropped} 条记录与更早的记录相同（忽略大小写与空白），分属 {clusters} 组，每组保留第一条。",
    ),
    "duplicates.near": (
        "{dropped} documents nearly equal an earlier one (MinHash); they stand in {clusters} groups, of which the "
        "first was kept.",
        "{dropped} 篇文档与更早的文档近似相同（MinHash），分属 {clusters} 组，每组保留第一条。",
    ),
    "duplicates.substring": (
        "Passages that stood before were taken out of {records} records: {characters} characters.",
        "从 {records} 条记录中去除了先前出现过的片段：共 {characters} 个字符。",
    ),
    "cluster.size": ("{n} records", "{n} 条"),
    "cluster.kept": ("kept", "保留"),
    "cluster.dropped": ("dropped", "丢弃"),
    # privacy
    "privacy.none": (
        "The recipe names no privacy step, and the independent check found nothing.",
        "配方没有隐私步骤，独立检查也未发现任何隐私信息。",
    ),
    "privacy.clean": (
        "The privacy step found nothing to replace, nor did the independent check.",
        "隐私步骤没有发现需要替换的内容，独立检查也未发现。",
    ),
    "privacy.text": (
        "What the privacy step replaced, and what a second search with other means still finds in the splits.",
        "隐私步骤替换的内容，以及用另一种方法在各划分中仍能找到的内容。",
    ),
    # samples
    "samples.text": ("An even sample of each split.", "各划分的均匀抽样。"),
    "chosen": ("better", "更好"),
    "rejected": ("worse", "更差"),
    # evidence
    "evidence.text": (
        "What the step checked of its own result. The next step refuses to start when a judged check failed.",
        "该步骤对自身结果的检查。判定项未通过时，下一步拒绝开始。",
    ),
    "verdict.passed": ("passed", "通过"),
    "verdict.failed": ("failed", "未通过"),
    "verdict.measured": ("measured", "测得"),
    # card
    "card.text": (
        "The same as card.md in this folder, whose head is what the Hugging Face hub reads.",
        "与同目录的 card.md 内容一致，其文件头可供 Hugging Face hub 读取。",
    ),
    "card.about": ("About", "简介"),
    "card.uses": ("Uses", "用途"),
    "card.limits": ("Limits", "局限"),
    "card.contact": ("Contact", "联系方式"),
    "card.citation": ("Citation", "引用"),
    "card.licenses": ("Licences", "许可证"),
    "card.languages": ("Languages", "语言"),
    "card.structure": ("Structure", "结构"),
    "card.structure_text": (
        "One Parquet file for each split ({splits}), one record a row. Columns: {columns}.",
        "每个划分一个 Parquet 文件（{splits}），每行一条记录。列：{columns}。",
    ),
    "card.processing": ("Processing", "处理"),
    "card.processing_text": (
        "Cleaning steps in order: {steps}. Held out by a hash of the content: validation {validation}, test {test}.",
        "依次的清洗步骤：{steps}。按内容哈希留出：验证 {validation}，测试 {test}。",
    ),
    "card.personal": ("Personal data", "个人信息"),
    "card.redacted": (
        "Private data were searched and replaced by their kind: {kinds}.",
        "已查找隐私信息并以其种类替换：{kinds}。",
    ),
    "card.not_redacted": (
        "No step searched for private data.",
        "没有步骤查找隐私信息。",
    ),
    "card.not_given": ("not stated in the recipe (key: card)", "配方未说明（键：card）"),
    "card.no_steps": ("none", "无"),
}
