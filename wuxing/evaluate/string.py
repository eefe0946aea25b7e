"""The words of the report in English and Chinese.  Both languages have every key; `{names}` are replaced by figures."""

from __future__ import annotations

import re

from wuxing.page import words
from wuxing.page.words import Texts

_ARITHMETIC_PART = re.compile(r"(\w+), (\d+) digits?")

TEXT: Texts = {
    # headings
    "title": ("{recipe}: a report", "{recipe}：评测报告"),
    "subtitle": (
        "Compiled from the records of the store. Every figure carries the number of its artifact; see the end.",
        "由存储库中的记录汇编而成。每个数字都带有其来源产物的编号，清单见文末。",
    ),
    "background": ("Background", "背景"),
    "goal": ("Goal", "目标"),
    "method": ("Method", "方法"),
    "results": ("Results", "结果"),
    "problems": ("Problems", "问题"),
    "next": ("Next steps", "后续改进"),
    "sources": ("Artifacts and evidence", "产物与证据"),
    "data": ("Data", "数据"),
    "tokenizer": ("Tokenizer", "分词器"),
    "models": ("Models", "模型"),
    "protocol": ("How it was measured", "测量方式"),
    "training": ("How training went", "训练过程"),
    "figures": ("Figures", "主要指标"),
    "comparisons": ("Paired comparisons", "成对比较"),
    "slices": ("By part of the task", "按任务部分"),
    "classes": ("Classes by {model}", "{model} 的各类别"),
    "overlap": ("Was the test seen in training?", "测试题是否在训练中出现过"),
    "replies": ("What the models say", "模型的回答"),
    # generated paragraphs
    "background.text": (
        "The recipe “{recipe}” lets a model live its whole life on one machine. {total} raw records were read, of "
        "which {kept} were kept; {models} models were trained on them, and measured on items that none of them may "
        "have seen.",
        "配方“{recipe}”让一个模型在一台机器上走完一生：共读入 {total} 条原始记录，保留 {kept} 条；"
        "在其上训练了 {models} 个模型，并用它们都不应见过的题目进行测量。",
    ),
    "goal.text": (
        "To find out whether each model is better than the one it went on from, and where none is good enough.",
        "弄清每个模型是否优于其起点模型，以及哪些方面仍不够好。",
    ),
    "goal.pair": ("Is {b} better than {a} at {metric}?", "{b} 在“{metric}”上是否优于 {a}？"),
    "answer.better": (
        "Yes: {difference}, 95 % interval {interval}, p = {p}.",
        "是：{difference}，95% 区间 {interval}，p = {p}。",
    ),
    "answer.worse": (
        "No, it is worse: {difference}, 95 % interval {interval}, p = {p}.",
        "否，反而变差：{difference}，95% 区间 {interval}，p = {p}。",
    ),
    "answer.unsure": (
        "Not shown: {difference}, 95 % interval {interval}, p = {p}.",
        "未能证明：{difference}，95% 区间 {interval}，p = {p}。",
    ),
    "data.text": (
        "Every raw record ends in exactly one fate, and the fates sum to 100 %. Splits are disjoint by content.",
        "每条原始记录恰有一个去向，各去向之和为 100%；各划分的内容互不相交。",
    ),
    "tokenizer.text": (
        "Byte-level. “Round trip” says whether held-out text and all 256 bytes survived the way to ids and back.",
        "字节级。“往返”表示留出文本和全部 256 个字节编码再解码后是否一致。",
    ),
    "models.text": (
        "Each model is one step of the recipe. “Started from” says whose weights it took over.",
        "每个模型是配方中的一步；“起点”表示继承了哪个模型的权重。",
    ),
    "protocol.bits": (
        "Bits per byte: {documents} held-out documents. Every token of a text is predicted from an end-of-text and all "
        "before it; the end-of-text behind it is not counted; the sum in bits is divided by the text's UTF-8 bytes.",
        "每字节比特数：{documents} 篇留出文档。从文档起始符开始，由之前的全部内容预测每个词元；末尾的结束符不计入；"
        "比特总数除以文本的 UTF-8 字节数。",
    ),
    "protocol.masked": (
        "Bits per byte of masked tokens: {documents} held-out documents. Every token of a text is hidden once and "
        "guessed from all that stands around it; the sum in bits is divided by the text's UTF-8 bytes.",
        "遮蔽词元的每字节比特数：{documents} 篇留出文档。文本的每个词元各遮蔽一次，由其前后全部内容猜测；"
        "比特总数除以文本的 UTF-8 字节数。",
    ),
    "protocol.classes": (
        "Classes: {documents} held-out documents, the likeliest class of each. Macro F1 is the mean over the classes; "
        "the calibration error compares how sure the model is with how often it is right (15 bins).",
        "分类：{documents} 篇留出文档，取最可能的类别。宏平均 F1 是各类别的平均值；校准误差比较模型的把握与实际正确率"
        "（15 个区间）。",
    ),
    "protocol.accuracy": (
        "Accuracy on {task}: {items} held-out problems, asked through the model's own chat template without examples, "
        "answered greedily with at most {tokens} tokens, judged by the task's verifier.",
        "{task} 正确率：{items} 道留出题目，用模型自己的对话模板提问，不给示例，贪心解码，"
        "至多 {tokens} 个词元，由任务的判定器判分。",
    ),
    "protocol.intervals": (
        "Intervals are at {confidence}: Wilson for shares, a bootstrap over documents for the other figures.",
        "区间的置信水平为 {confidence}：比例用 Wilson 区间，其他指标用按文档的自助法。",
    ),
    "protocol.pairs": (
        "Models are compared on the same items: McNemar's exact test for accuracy, a paired bootstrap for bits per "
        "byte; p is adjusted for the number of comparisons (Holm).",
        "模型在相同题目上比较：正确率用 McNemar 精确检验，每字节比特数用成对自助法；p 值按比较次数校正（Holm）。",
    ),
    "protocol.baseline": (
        "Baselines need no model: the byte frequencies of the training split, and always giving the commonest answer "
        "or class.",
        "基线不需要模型：训练集的字节频率，以及总是给出最常见的答案或类别。",
    ),
    "overlap.text": (
        "Of {items} evaluation items, {leaked} stand in some model's training data as they are (the same text, "
        "question or problem), and {near} share long runs of words with a training row.",
        "{items} 个评测项中，{leaked} 个原样出现在某个模型的训练数据里（相同的文本、问题或题目），"
        "{near} 个与某条训练记录共有较长的词串。",
    ),
    "classes.others": ("the other classes", "其余类别"),
    "confusions.text": ("What is taken for what, the commonest mistakes first:", "最常见的混淆："),
    "confusion.matrix": (
        "Confusion matrix: rows are the true classes, columns the named ones, by number",
        "混淆矩阵：行为真实类别，列为所判类别（按编号）",
    ),
    "calibration.perfect": ("as sure as right", "把握与正确率一致"),
    "calibration.fits": (
        "{model} is as often right as it is sure: its calibration error is {error}, and a perfectly calibrated model "
        "would show up to {limit} on as many documents.",
        "{model} 的把握与正确率相符：校准误差为 {error}；在这么多文档上，完全校准的模型也会有至多 {limit} 的误差。",
    ),
    "calibration.off": (
        "{model} is not as often right as it is sure: its calibration error is {error}, where a perfectly calibrated "
        "model would show {limit} at most. Its probabilities should not be taken at their word.",
        "{model} 的把握与正确率不符：校准误差为 {error}，而完全校准的模型至多为 {limit}。其概率不可直接采信。",
    ),
    "no_problems": ("No rule found a weakness.", "各条规则均未发现弱点。"),
    "no_next": ("No rule asks for anything.", "没有规则提出要求。"),
    # tables
    "col.model": ("model", "模型"),
    "col.name": ("name", "名称"),
    "col.metric": ("measure", "指标"),
    "col.value": ("value", "数值"),
    "col.interval": ("95 % interval", "95% 区间"),
    "col.n": ("items", "样本数"),
    "col.baseline": ("baseline", "基线"),
    "col.pair": ("compared", "比较"),
    "col.difference": ("difference", "差值"),
    "col.p": ("p (adjusted)", "p（校正后）"),
    "col.verdict": ("verdict", "结论"),
    "col.raw": ("raw records", "原始记录"),
    "col.kept": ("kept", "保留"),
    "col.train": ("training", "训练"),
    "col.validation": ("validation", "验证"),
    "col.test": ("test", "测试"),
    "col.fates": ("largest other fates", "其他主要去向"),
    "col.start": ("started from", "起点"),
    "col.objective": ("objective", "训练目标"),
    "col.parameters": ("parameters", "参数量"),
    "col.steps": ("steps", "步数"),
    "col.tokens": ("tokens seen", "所见词元"),
    "col.minutes": ("minutes", "分钟"),
    "col.read": ("read", "读取"),
    "col.ids": ("ids", "词表大小"),
    "col.bytes": ("bytes per token", "每词元字节数"),
    "col.round_trip": ("round trip", "往返"),
    "exact": ("exact", "一致"),
    "not_exact": ("not exact", "不一致"),
    "col.artifact": ("artifact", "产物"),
    "col.fingerprint": ("fingerprint", "指纹"),
    "col.created": ("made", "生成时间"),
    "col.checks": ("checks", "检查"),
    "col.class": ("class", "类别"),
    "col.named": ("named", "被认作"),
    "col.count": ("documents", "文档数"),
    "col.share": ("share of the class", "占该类的比例"),
    "col.precision": ("precision", "精确率"),
    "col.recall": ("recall", "召回率"),
    "col.f1": ("F1", "F1"),
    "col.slice": ("part", "部分"),
    "col.stopped": ("replies that end by themselves", "自行结束的回答"),
    "verdict.better": ("better", "更好"),
    "verdict.worse": ("worse", "更差"),
    "verdict.unsure": ("could be chance", "可能是偶然"),
    "new": ("new", "新建"),
    "and": (", ", "、"),
    "passed": ("{count} passed", "{count} 项通过"),
    "failed": ("{count} failed", "{count} 项未通过"),
    "measured": ("{count} measured", "{count} 项测得"),
    # measures, fates, objectives
    "metric.bits_per_byte": ("bits per byte", "每字节比特数"),
    "metric.masked_bits_per_byte": ("bits per byte, masked tokens", "遮蔽词元的每字节比特数"),
    "metric.accuracy": ("accuracy", "正确率"),
    "metric.macro_f1": ("macro F1", "宏平均 F1"),
    "metric.calibration_error": ("calibration error", "校准误差"),
    "metric.lower": ("lower is better", "越低越好"),
    "metric.higher": ("higher is better", "越高越好"),
    "fate.kept": ("kept", "保留"),
    "fate.duplicate": ("duplicate", "重复"),
    "fate.near_duplicate": ("near duplicate", "近似重复"),
    "fate.filtered": ("filtered", "过滤"),
    "fate.unreadable": ("unreadable", "无法读取"),
    "fate.truncated": ("truncated", "截断"),
    "fate.other": ("other", "其他"),
    "objective.next_token": ("next token", "预测下一词元"),
    "objective.masked": ("masked tokens", "预测被遮蔽的词元"),
    "objective.classify": ("classes", "分类"),
    "objective.grpo": ("GRPO (rewarded by the verifier)", "GRPO（以判定器为奖励）"),
    "baseline.byte_frequencies": ("byte frequencies alone", "仅凭字节频率"),
    "baseline.commonest_answer": ("always the commonest answer", "总答最常见的答案"),
    "baseline.commonest_class": ("always the commonest class", "总取最常见的类别"),
    "operation.add": ("add", "加法"),
    "operation.subtract": ("subtract", "减法"),
    "operation.multiply": ("multiply", "乘法"),
    "operation.divide": ("divide", "除法"),
    # plots
    "plot.metrics": ("Every model with its interval; the dashed line is the baseline", "各模型及其区间；虚线为基线"),
    "plot.curves": ("Training of {model}", "{model} 的训练过程"),
    "plot.fates": ("What became of the raw records", "原始记录的去向"),
    "plot.reliability": ("How sure {model} is, and how often it is right", "{model} 的把握与实际正确率"),
    "plot.slices": ("Accuracy by part of {task}", "{task} 各部分的正确率"),
    "axis.tokens": ("tokens seen", "所见词元"),
    "axis.steps": ("steps", "步数"),
    "axis.loss": ("training loss (nats)", "训练损失（奈特）"),
    "axis.bits": ("bits per byte (validation)", "每字节比特数（验证集）"),
    "axis.masked_bits": ("bits per byte, masked (validation)", "遮蔽词元的每字节比特数（验证集）"),
    "axis.right": ("share right", "正确的比例"),
    "axis.sure": ("how sure the model is", "模型的把握"),
    "axis.reward": ("reward", "奖励"),
    "axis.accuracy": ("accuracy", "正确率"),
    "axis.share": ("share of raw records", "占原始记录的比例"),
    # samples
    "sample.right": ("right", "正确"),
    "sample.wrong": ("wrong", "错误"),
    "sample.expected": ("expected {answer}", "应为 {answer}"),
    "sample.empty": ("(nothing)", "（空）"),
    "sample.text": (
        "Of each model and task: the first right replies, and the wrong ones of which it was surest.",
        "每个模型、每个任务：最靠前的正确回答，以及模型最有把握的错误回答。",
    ),
    "sample.sure": ("mean log-probability {value}", "平均对数概率 {value}"),
    # problems and the steps that follow from them
    "problem.missing": (
        "The store no longer holds {ids}; nothing about them is in this report.",
        "存储库中已没有 {ids}；本报告不含其内容。",
    ),
    "next.missing": ("Run the recipe again to make them anew.", "重新运行配方以再次生成。"),
    "problem.failed": ("A check failed: {failure}.", "检查未通过：{failure}。"),
    "next.failed": (
        "Mend what this check points at before anything is built on it: {failure}.",
        "在继续之前，先解决该检查指出的问题：{failure}。",
    ),
    "problem.accepted": (
        "A failed check was accepted by a person: {failure}. Reason given: “{reason}”.",
        "一项未通过的检查被人工放行：{failure}。理由：“{reason}”。",
    ),
    "next.accepted": ("Come back to what was accepted: {failure}.", "回头处理被放行的检查：{failure}。"),
    "problem.leaked": (
        "{count} of {items} evaluation items stand in the training data.",
        "{items} 个评测项中有 {count} 个出现在训练数据里。",
    ),
    "next.leaked": (
        "Take these rows out of the training data, or the items out of the evaluation (overlap.exact: remove).",
        "从训练数据中去掉这些记录，或在评测中剔除这些题目（overlap.exact: remove）。",
    ),
    "problem.near": (
        "{count} of {items} evaluation items share long runs of words with training rows; their figures may flatter.",
        "{items} 个评测项中有 {count} 个与训练记录共有较长词串，其指标可能偏高。",
    ),
    "next.near": (
        "Look at them in overlap.json; lower the near-duplicate threshold of the corpus if they are copies.",
        "在 overlap.json 中查看；若确属复制，降低语料近似去重的阈值。",
    ),
    "problem.baseline": (
        "{model} is not surely better than the baseline at {metric}: {value} against {baseline}.",
        "{model} 在“{metric}”上未能确定优于基线：{value}，基线为 {baseline}。",
    ),
    "next.baseline": (
        "Expect nothing of {model} at {metric} before it was taught that; it serves as a starting point.",
        "在专门教授之前，不要指望 {model} 的“{metric}”；它只作起点。",
    ),
    "problem.worse": (
        "{b} is worse than {a} at {metric} by {difference} (95 % interval {interval}): what was learnt later displaced "
        "what was learnt before.",
        "{b} 在“{metric}”上比 {a} 差 {difference}（95% 区间 {interval}）：后学的内容挤掉了先前所学。",
    ),
    "next.worse": (
        "Mix some of {a}'s data into the training of {b}, or train it for fewer steps or at a lower learning rate.",
        "在训练 {b} 时混入一部分 {a} 的数据，或减少步数、降低学习率。",
    ),
    "problem.unsure": (
        "Whether {b} is better than {a} at {metric} is not shown: {difference}, 95 % interval {interval}, on {n} "
        "items.",
        "尚不能证明 {b} 在“{metric}”上优于 {a}：{difference}，95% 区间 {interval}，共 {n} 项。",
    ),
    "next.unsure": (
        "Give {b} a larger budget, or measure {metric} on more items.",
        "给 {b} 更多训练预算，或用更多题目测量“{metric}”。",
    ),
    "problem.endless": (
        "Only {share} of {model}'s replies to {task} end by themselves; the others were cut off.",
        "{model} 对 {task} 的回答中只有 {share} 自行结束，其余被截断。",
    ),
    "next.endless": (
        "Teach {model} dialogues, whose turns end, before it is asked questions.",
        "在提问之前，先用有结束标记的对话训练 {model}。",
    ),
    "problem.slice": (
        "{model} is weak at “{slice}”: {value} there, {whole} on the whole ({n} items).",
        "{model} 的弱项是“{slice}”：此处 {value}，整体 {whole}（{n} 项）。",
    ),
    "next.slice": (
        "Give “{slice}” more weight in the next training of {model}.",
        "下一次训练 {model} 时提高“{slice}”的权重。",
    ),
    "problem.unfinished": (
        "The validation of {model} was still falling when its budget ended: by {fall} since the measurement before.",
        "{model} 的预算用完时，验证指标仍在下降：比前一次测量低 {fall}。",
    ),
    "next.unfinished": ("Give {model} a larger budget.", "给 {model} 更大的预算。"),
    "problem.small": (
        "With {n} items, {metric} is known to ± {half} only.",
        "只有 {n} 项时，“{metric}”仅能确定到 ± {half}。",
    ),
    "next.small": (
        "Measure {metric} on about {needed} items: that narrows it to ± {goal}.",
        "用约 {needed} 项测量“{metric}”，可缩小到 ± {goal}。",
    ),
    "problem.dropped": (
        "{share} of the raw records of {name} ended as “{fate}” ({count}).",
        "{name} 的原始记录有 {share} 以“{fate}”告终（{count} 条）。",
    ),
    "next.dropped": (
        "Read some of the records that {name} lost as “{fate}” (fates.parquet), and mend the rule or the source.",
        "查看 {name} 中以“{fate}”告终的记录（fates.parquet），修正规则或来源。",
    ),
}


class Words(words.Words):
    """The texts of one language.  UsageError for a language that is not there."""

    def __init__(self, language: str):
        super().__init__(language, TEXT)

    def metric(self, metric: str) -> str:
        """`accuracy/arithmetic` → accuracy · arithmetic."""
        kind, _, set = metric.partition("/")
        return f"{self.get(f'metric.{kind}', kind)} · {set}"

    def part(self, part: str) -> str:
        """`add, 2 digits` → 加法，2 位; parts that a plug-in names stay as they are."""
        match = _ARITHMETIC_PART.fullmatch(part)
        if self.language == "en" or not match:
            return part
        return f"{self.get('operation.' + match[1], match[1])}，{match[2]} 位"

    def fate(self, fate: str) -> str:
        """`filtered:too_short` → filtered: too_short."""
        kind, _, reason = fate.partition(":")
        name = self.get(f"fate.{kind}", kind)
        return f"{name}{self.colon}{reason}" if reason else name
