"""Chinese is written in two scripts; a model that sees one window at a time takes now this one and now the other.

The script of a recording is that of its first text that tells; a short prompt in it keeps the others to it.
"""

# Frequent characters that differ, simplified and traditional.
_PAIRS = (
    "这這 个個 们們 来來 时時 说說 国國 会會 对對 发發 经經 种種 过過 还還 进進 开開 么麼 为為 学學 现現 实實 点點 "
    "里裡 问問 间間 让讓 没沒 后後 样樣 当當 从從 两兩 动動 无無 与與 关關 东東 话話 给給 认認 见見 觉覺 谁誰 请請 "
    "书書 车車 长長 门門 马馬 头頭 听聽 电電 机機 总總 难難 边邊 岁歲 亲親 爱愛 "
    "儿兒 吗嗎 气氣 声聲 数數 据據 习習 测測 试試"
).split()
_SIMPLIFIED = frozenset(pair[0] for pair in _PAIRS)
_TRADITIONAL = frozenset(pair[1] for pair in _PAIRS)
_PROMPTS = {"simplified": "以下是普通话的句子。", "traditional": "以下是普通話的句子。"}


def script_of(text: str) -> str | None:
    """`simplified` or `traditional`, whichever the text has more of; None where it does not tell."""
    simplified = sum(character in _SIMPLIFIED for character in text)
    traditional = sum(character in _TRADITIONAL for character in text)
    if simplified == traditional:
        return None
    return "simplified" if simplified > traditional else "traditional"


def style_prompt(script: str | None) -> str | None:
    """A sentence that shows the script to the model."""
    return None if script is None else _PROMPTS[script]
