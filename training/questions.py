"""The ways each thing is asked, in English and Chinese, and the fixed small talk."""

from __future__ import annotations

from random import Random

from training.lists import SHAPES, Language

PRICE: dict[Language, tuple[str, ...]] = {
    "en": (
        "What is the price", "How much is it", "How much does it cost", "Read the price",
        "What price is shown", "What's the price", "Price", "Tell me the price",
        "What is the price on the tag", "How much is this",
    ),
    "zh": (
        "图中价格是多少", "价格是多少", "多少钱", "这个多少钱", "标价是多少", "请读出价格",
        "售价是多少", "图片中的价格是多少", "价格",
    ),
}  # fmt: skip
LABEL: dict[Language, tuple[str, ...]] = {
    "en": (
        "What does the label say", "Read the label", "What is written on the label",
        "What text is shown", "Read the text", "What does the text say", "What does it say",
        "What is written here", "Label",
    ),
    "zh": (
        "标签上写了什么", "标签上写的是什么", "请读出标签", "图中写了什么", "图中的文字是什么",
        "标签内容是什么", "上面写着什么", "读出文字", "标签",
    ),
}  # fmt: skip
REVIEW: dict[Language, tuple[str, ...]] = {
    "en": (
        "Review this product picture: approve or reject", "Review this picture",
        "Review this product picture", "Approve or reject", "Should this picture be approved",
        "Check this product image", "Does this picture pass review",
    ),
    "zh": (
        "请审核这张商品图", "审核这张图片", "这张商品图能通过吗", "请审核图片", "这张图合格吗",
        "审核商品图:通过还是拒绝", "图片审核",
    ),
}  # fmt: skip
_COLOUR: dict[Language, tuple[str, ...]] = {
    "en": (
        "What colour is the {}", "What color is the {}", "Which colour is the {}",
        "What is the color of the {}", "What is the colour of the {}", "Which color is the {}",
        "{} colour", "Tell me the colour of the {}",
    ),
    "zh": (
        "{}是什么颜色", "图中的{}是什么颜色", "{}是什么颜色的", "{}的颜色是什么",
        "请问{}是什么颜色", "{}的颜色",
    ),
}  # fmt: skip
_COUNT: dict[Language, tuple[str, ...]] = {
    "en": (
        "How many {} are there", "How many {} are in the picture", "Count the {}",
        "How many {} do you see", "How many {}", "What is the number of {}",
    ),
    "zh": (
        "图中有几个{}", "有几个{}", "有多少个{}", "图中有多少个{}", "请数一数{}",
        "{}有几个", "{}的数量是多少",
    ),
}  # fmt: skip

_ABILITY_EN = (
    "I am Forebay's demo model. I can read prices and short labels, name colours, count shapes "
    "and review product pictures."
)
_ABILITY_ZH = "我是 Forebay 的演示模型,可以读价格和短标签、说出颜色、数图形、审核商品图。"
_ONLY_EN = "I can only answer questions about prices, labels, colours, shapes and product pictures."
_ONLY_ZH = "我只能回答关于价格、标签、颜色、图形和商品图审核的问题。"
TALK: tuple[tuple[Language, str, tuple[str, ...]], ...] = (
    ("en", "Hello! " + _ABILITY_EN, ("hello", "Hi", "Hey", "Good morning", "Hello there")),
    (
        "en",
        _ABILITY_EN,
        ("Who are you", "What can you do", "What are you", "Help", "What is this", "Introduce "
         "yourself", "What can I ask you"),
    ),
    (
        "en",
        _ONLY_EN,
        ("Tell me a joke", "Write a poem", "What is the capital of France", "What is the weather "
         "today", "Translate this", "Write some code", "Who is the president", "What is 2+2",
         "Tell me a story", "Sing a song", "What time is it", "Explain gravity", "Write an essay "
         "about the sea", "How do I cook rice", "Solve this equation"),
    ),
    ("en", "You are welcome.", ("Thanks", "Thank you", "Thank you very much")),
    ("zh", "你好!" + _ABILITY_ZH, ("你好", "您好", "嗨", "早上好", "哈喽")),
    (
        "zh",
        _ABILITY_ZH,
        ("你是谁", "你能做什么", "你会什么", "介绍一下你自己", "帮助", "你可以做什么"),
    ),
    (
        "zh",
        _ONLY_ZH,
        ("讲个笑话", "写一首诗", "法国的首都是哪里", "今天天气怎么样", "翻译一下",
         "写一段代码", "一加一等于几", "讲个故事", "唱首歌", "现在几点了", "怎么做饭",
         "解释一下引力", "写一篇作文"),
    ),
    ("zh", "不客气。", ("谢谢", "多谢", "非常感谢")),
)  # fmt: skip


def every_question() -> list[str]:
    """Return all phrasings without their marks (the tokenizer learns its words from them)."""
    plain = [q for table in (PRICE, LABEL, REVIEW) for group in table.values() for q in group]
    for names in SHAPES.values():
        plain += [q.format(names[0]) for q in _COLOUR["en"]]
        plain += [q.format(names[1]) for q in _COUNT["en"]]
        for name in names[2:]:
            plain += [q.format(name) for q in _COLOUR["zh"] + _COUNT["zh"]]
    plain += [q.format("shapes") for q in _COUNT["en"]] + [q.format("图形") for q in _COUNT["zh"]]
    return plain + [q for _, _, group in TALK for q in group]


def colour_question(rng: Random, language: Language, shape: str) -> str:
    """Ask for the colour of the only ``shape`` in the picture."""
    names = SHAPES[shape]
    name = names[0] if language == "en" else rng.choice(names[2:])
    return dress(rng, rng.choice(_COLOUR[language]).format(name), language)


def count_question(rng: Random, language: Language, shape: str | None) -> str:
    """Ask how many of ``shape`` there are; None asks for all shapes."""
    if shape is None:
        name = "shapes" if language == "en" else "图形"
    else:
        names = SHAPES[shape]
        name = names[1] if language == "en" else rng.choice(names[2:])
    return dress(rng, rng.choice(_COUNT[language]).format(name), language)


def dress(rng: Random, question: str, language: Language) -> str:
    """Vary the case and the closing mark."""
    if language == "zh":
        return question + rng.choice(("\uff1f", "\uff1f", "?", "", "\u3002"))
    draw = rng.random()
    if draw < 0.15:
        question = question.lower()
    elif draw < 0.19:
        question = question.upper()
    else:
        question = question[0].upper() + question[1:]
    return question + rng.choice(("?", "?", "?", "", "."))
