"""Labels in pictures: Chinese words where this machine has letters for them, and their sounds (pinyin) where it has not."""

from __future__ import annotations

from functools import cache

__all__ = ["PINYIN", "fonts", "label"]

FAMILIES = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Serif CJK SC", "Source Han Sans SC", "WenQuanYi Micro Hei",
    "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei",
)  # fmt: skip

PINYIN = {
    "一": "yī", "两": "liǎng", "三": "sān", "四": "sì", "只": "zhī", "个": "gè", "本": "běn", "猫": "māo",
    "狗": "gǒu", "鸟": "niǎo", "女孩": "nǚhái", "男孩": "nánhái", "书": "shū", "睡觉": "shuìjiào",
    "跑步": "pǎobù", "唱歌": "chànggē", "看见": "kànjiàn", "喜欢": "xǐhuan", "找到": "zhǎodào",
    "红色": "hóngsè", "的": "de", "大": "dà", "小": "xiǎo", "老": "lǎo", "老人": "lǎorén", "买": "mǎi",
    "朋友": "péngyou", "在": "zài", "花园": "huāyuán", "里": "lǐ", "家": "jiā", "城市": "chéngshì", "。": ".",
}  # fmt: skip
"""The sounds of the grammars' Chinese words."""


@cache
def fonts() -> tuple[str, ...]:
    """Font families for matplotlib: those with Chinese letters that this machine has, and DejaVu Sans."""
    from matplotlib.font_manager import fontManager

    known = set(fontManager.get_font_names())
    return (*(family for family in FAMILIES if family in known), "DejaVu Sans")


def label(word: str) -> str:
    """A word as a picture can show it here."""
    return word if len(fonts()) > 1 else PINYIN.get(word, word)
