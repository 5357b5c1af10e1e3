"""Everything the demo model was ever shown by name: colours, shapes, words, reasons, glyphs."""

from __future__ import annotations

from typing import Literal

Language = Literal["en", "zh"]

# name: (Chinese name, hue range in degrees, saturation range, value range)
Range = tuple[float, float]
COLOURS: dict[str, tuple[str, Range, Range, Range]] = {
    "red": ("红色", (-8, 7), (0.80, 1.0), (0.72, 1.0)),
    "orange": ("橙色", (24, 34), (0.88, 1.0), (0.92, 1.0)),
    "yellow": ("黄色", (50, 60), (0.80, 1.0), (0.90, 1.0)),
    "green": ("绿色", (100, 145), (0.60, 1.0), (0.45, 0.85)),
    "blue": ("蓝色", (205, 235), (0.70, 1.0), (0.65, 1.0)),
    "purple": ("紫色", (268, 288), (0.60, 0.95), (0.50, 0.85)),
    "pink": ("粉色", (325, 345), (0.25, 0.50), (0.95, 1.0)),
    "black": ("黑色", (0, 360), (0.0, 0.3), (0.0, 0.13)),
    "white": ("白色", (0, 360), (0.0, 0.04), (0.95, 1.0)),
    "gray": ("灰色", (0, 360), (0.0, 0.06), (0.42, 0.62)),
}
COLOUR_NAMES = tuple(COLOURS)

SHAPES: dict[str, tuple[str, ...]] = {  # singular, plural, Chinese names
    "circle": ("circle", "circles", "圆形", "圆"),
    "square": ("square", "squares", "正方形", "方形"),
    "triangle": ("triangle", "triangles", "三角形"),
    "star": ("star", "stars", "五角星", "星形"),
    "diamond": ("diamond", "diamonds", "菱形"),
    "heart": ("heart", "hearts", "心形"),
}
SHAPE_NAMES = tuple(SHAPES)

REASONS: dict[str, tuple[str, str]] = {  # key: English and Chinese answer
    "approve": ("approve", "通过"),
    "watermark": ("reject: watermark", "拒绝:含水印"),
    "blurred": ("reject: blurred", "拒绝:图片模糊"),
    "no product": ("reject: no product", "拒绝:没有商品"),
    "prohibited sign": ("reject: prohibited sign", "拒绝:违禁标志"),
    "no price": ("reject: no price", "拒绝:缺少价格"),
}
REASON_NAMES = tuple(REASONS)

WORDS = tuple(
    """
    SALE NEW HOT FRESH MILK TEA COFFEE BREAD RICE SALT SUGAR EGG FISH MEAT BEEF PORK FRUIT
    APPLE PEAR GRAPE LEMON MANGO PEACH PLUM MELON BANANA ORANGE TOMATO POTATO ONION CARROT BEAN
    CORN NUTS OIL SAUCE SOUP NOODLE PASTA CAKE COOKIE CANDY CHOCO HONEY JAM CREAM BUTTER CHEESE
    YOGURT JUICE WATER SODA BEER WINE SOAP BRUSH TOWEL PAPER PEN BOOK BAG BOX CUP BOTTLE BOWL
    PLATE KNIFE SPOON FORK CHAIR TABLE DESK LAMP SOFA BED PILLOW SHIRT DRESS COAT JEANS SHOES
    SOCKS HAT GLOVE SCARF BELT WATCH RING PHONE CAMERA LAPTOP MOUSE CABLE RADIO CLOCK TOY BALL
    BIKE HELMET ROPE TENT DRILL HAMMER PAINT GLUE TAPE NAIL SCREW BOLT PUMP VALVE MOTOR FAN
    ORGANIC VEGAN LOCAL EXTRA LARGE SMALL MEDIUM MINI MAXI SUPER BEST CHOICE OFFER DEAL SAVE
    FREE GIFT LIMITED SPECIAL PREMIUM CLASSIC ORIGINAL NATURAL PURE SWEET SPICY SOUR LIGHT DARK
    GREEN OPEN CLOSED EXIT STOP QUEUE ZERO FIVE SEVEN JACKET WIZARD QUICK JUMBO FOX LAZY
    """.split()  # noqa: SIM905
)

HANZI_WORDS = tuple(
    """
    新品 特价 热卖 牛奶 面包 苹果 香蕉 西瓜 草莓 鸡蛋 大米 面粉 食盐 白糖 酱油 豆腐 绿茶 红茶
    咖啡 果汁 可乐 啤酒 矿泉水 饼干 糖果 巧克力 牛肉 鸡肉 鱼 蔬菜 水果 饮料 毛巾 牙膏 牙刷
    洗发水 香皂 纸巾 雨伞 书包 铅笔 手机 电脑 耳机 手表 相机 电视 冰箱 空调 台灯 衬衫 裤子 帽子
    运动鞋 玩具 足球 自行车 花 茶 酒 米 家具 桌子 沙发 有机 进口 限时 免费 包邮 正品 今日特价
    买一送一
    """.split()  # noqa: SIM905
)

DIGITS = "0123456789"
UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LOWER = UPPER.lower()
SYMBOLS = "¥$€.,-"
HANZI = "".join(dict.fromkeys("".join(HANZI_WORDS) + "仅供参考样图"))
GLYPHS = DIGITS + UPPER + LOWER + SYMBOLS + HANZI
GLYPH_INDEX = {character: at for at, character in enumerate(GLYPHS)}
MAX_ORDER = 12  # glyphs of a line that have an order of their own
LINE_KINDS = ("none", "price", "label", "other")
