"""The words of ``forebay top``, in both languages."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final, Literal

Language = Literal["en", "zh"]
Words = Mapping[str, str]

_EN: Final[Words] = {
    "green": "GREEN",
    "yellow": "YELLOW",
    "red": "RED",
    "well": "All is well.",
    "away": "No answer from {url}: {why}. Trying again.",
    "queue_away": "the queue's server does not answer",
    "no_workers": "no worker serves",
    "stuck": "tasks wait and nothing has moved for {value}",
    "alert_critical": "alert {subject}",
    "alert_warning": "alert {subject}",
    "over": "{subject} is {value}, over {limit}",
    "worker": "worker {subject} does not serve",
    "queue_drained": "the queue is drained",
    "shedding": "requests are refused: {value}",
    "requests_rate": "requests",
    "errors_rate": "errors",
    "shed_rate": "refused",
    "queue_length": "queue",
    "oldest_age_s": "oldest",
    "token_backlog": "backlog",
    "ttft_p95_s": "TTFT P95",
    "tpot_p50_s": "TPOT P50",
    "latency_p50_s": "answer P50",
    "latency_p95_s": "answer P95",
    "batch_occupancy": "batch",
    "kv_use": "KV cache",
    "gpu_use": "GPU",
    "gpu_memory_share": "GPU memory",
    "gpu_memory_bytes": "GPU memory",
    "cpu": "CPU",
    "memory": "memory",
    "disk": "disk",
    "workers": "Workers",
    "no_worker_known": "No worker has been heard of.",
    "state": "state",
    "leases": "tasks",
    "model": "model",
    "more": "and {count} more",
    "alerts": "Alerts",
    "no_alerts": "Nothing fires.",
    "silenced": "silenced",
    "keys": "q quit   up/down choose   d drain   u undrain",
    "sure": "Drain {subject}? It ends what it has and takes nothing more.  y / n",
    "drain": "{subject} drains.",
    "undrain": "{subject} takes tasks again.",
    "refused": "It was refused: {why}",
    "small": "The terminal is too small: 60 x 12 is needed.",
}

_ZH: Final[Words] = {
    "green": "绿灯",
    "yellow": "黄灯",
    "red": "红灯",
    "well": "一切正常。",
    "away": "{url} 没有应答：{why}。正在重试。",
    "queue_away": "队列服务器没有应答",
    "no_workers": "没有工作进程在服务",
    "stuck": "有任务等待，已有 {value} 毫无进展",
    "alert_critical": "告警 {subject}",
    "alert_warning": "告警 {subject}",
    "over": "{subject} 为 {value}，超过 {limit}",
    "worker": "工作进程 {subject} 不在服务",
    "queue_drained": "队列已排空",
    "shedding": "正在拒绝请求：{value}",
    "requests_rate": "请求",
    "errors_rate": "错误",
    "shed_rate": "被拒绝",
    "queue_length": "队列",
    "oldest_age_s": "最久等待",
    "token_backlog": "积压词元",
    "ttft_p95_s": "首字 P95",
    "tpot_p50_s": "每词元 P50",
    "latency_p50_s": "回答 P50",
    "latency_p95_s": "回答 P95",
    "batch_occupancy": "批占用",
    "kv_use": "KV 缓存",
    "gpu_use": "GPU",
    "gpu_memory_share": "显存",
    "gpu_memory_bytes": "显存",
    "cpu": "CPU",
    "memory": "内存",
    "disk": "磁盘",
    "workers": "工作进程",
    "no_worker_known": "没有任何工作进程的消息。",
    "state": "状态",
    "leases": "任务",
    "model": "模型",
    "more": "另有 {count} 个",
    "alerts": "告警",
    "no_alerts": "没有告警。",
    "silenced": "已静默",
    "keys": "q 退出   上/下 选择   d 排空   u 恢复",
    "sure": "排空 {subject}？它会完成手中的任务，不再接新任务。  y / n",
    "drain": "{subject} 正在排空。",
    "undrain": "{subject} 重新接收任务。",
    "refused": "被拒绝：{why}",
    "small": "终端太小：至少需要 60 x 12。",
}

WORDS: Final[Mapping[Language, Words]] = {"en": _EN, "zh": _ZH}

REASONS: Final = frozenset(
    {"queue_away", "no_workers", "stuck", "alert_critical"}
    | {"alert_warning", "over", "worker", "queue_drained", "shedding"}
)
"""Why the light is not green, as the server has it."""

_LANGUAGE_VARIABLES: Final = ("LC_ALL", "LC_MESSAGES", "LANG")


def language_of(environment: Mapping[str, str] | None = None) -> Language:
    """Return the language of the terminal's user: the first of these variables that is set."""
    told = os.environ if environment is None else environment
    found = next((told[name] for name in _LANGUAGE_VARIABLES if told.get(name)), "")
    return "zh" if found.lower().startswith("zh") else "en"


def reason_text(reason: Mapping[str, Any], words: Words) -> str:
    """Return why the light is not green, in words; an unknown code as it is."""
    code, subject = str(reason.get("code", "")), str(reason.get("subject") or "")
    if code not in REASONS:
        return f"{code} {subject}".strip()
    key = {"stuck": "oldest_age_s", "shedding": "shed_rate"}.get(code, subject)
    return words[code].format(
        subject=words.get(subject, subject),
        value=value_text(key, reason.get("value")),
        limit=value_text(key, reason.get("limit")),
    )


def value_text(key: str, value: float | None) -> str:
    """Return a value of the live series as people read it, its unit from its key."""
    if value is None:
        return "-"
    if key.endswith("_bytes"):
        return f"{value / 2**30:.1f} GiB"
    if key.endswith("_s"):
        return _seconds(value)
    if key.endswith("_rate"):
        return f"{value:.1f}/s"
    if key in _SHARES:
        return f"{value:.0%}"
    return _count(value)


_SHARES: Final = frozenset(
    {"gpu_use", "gpu_memory_share", "cpu", "memory", "disk", "batch_occupancy", "kv_use"}
    | {"prefix_hits", "encoder_hits"}
)


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 60 else f"{value / 60:.0f} min"


def _count(value: float) -> str:
    for size, sign in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            return f"{value / (1e3 if sign == 'k' else size):.1f}{sign}"
    return f"{value:.0f}"
