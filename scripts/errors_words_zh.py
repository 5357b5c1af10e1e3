"""What each error means and what to do, in Chinese; held to ``forebay/core/errors.py``."""

from __future__ import annotations

from typing import Final

WORDS_ZH: Final[dict[str, tuple[str, str]]] = {
    "internal_error": (
        "未预料到的内部错误。",
        "用请求编号查看服务器日志并报告。",
    ),
    "invalid_request": (
        "请求不符合文档规定的形式(JSON 错误、类型错误、字段不受支持)。",
        "改正说明中指出的字段，形式见 /docs。",
    ),
    "missing_part": (
        "缺少请求所需的部分或字段。",
        "补上缺少的部分；`/predict` 需要 multipart 的 `image` 和 `prompt`。",
    ),
    "invalid_constraint": (
        "对回答格式的约束(JSON schema、正则表达式或选项列表)有误或过于复杂。",
        "改正说明中指出的关键字或位置，或简化约束。",
    ),
    "unauthorized": (
        "请求没有携带 API 密钥或令牌，或携带的在此无效。",
        "发送有效的密钥或令牌:`Authorization: Bearer KEY`；`forebay keys` 可创建密钥。",
    ),
    "forbidden": (
        "调用者身份已知，但无权这样做：说明中指出了所需的权限或限制。",
        "使用拥有说明中所指权限的密钥，或只请求该密钥允许的内容。",
    ),
    "address_not_allowed": (
        "客户端地址不在允许的列表中。",
        "从允许的网络访问；管理员请检查 allow_... 设置和 trusted_proxies。",
    ),
    "keys_unavailable": (
        "无法从签发者获取用于验证令牌的密钥。",
        "等待 Retry-After 给出的时间；管理员请检查 jwt_jwks_url 是否可用。",
    ),
    "silence_not_found": (
        "没有这个告警静默：从未在此创建，或已结束。",
        "检查 ID；GET /v1/admin/alerts 列出所有静默。",
    ),
    "key_not_found": (
        "没有这个 API 密钥：从未创建，或已失效。",
        "检查编号；`forebay keys list` 会列出所有密钥。",
    ),
    "model_not_found": (
        "请求指定的模型不在此处提供。",
        "使用 GET /v1/models 列出的名称。",
    ),
    "no_such_route": (
        "没有这个路径，或该路径不支持这种方法。",
        "可用路径见 /docs。",
    ),
    "worker_not_found": (
        "没有这个工作进程：近期没有以此编号报告的工作进程。",
        "检查编号；GET /v1/admin/workers 列出所有工作进程。",
    ),
    "no_supervisor": (
        "没有能够启动或结束工作进程的监管进程在运行。",
        "在启动工作进程的地方调整数量，例如 kubectl scale；`forebay serve` 会在此处照办。",
    ),
    "task_not_dead": (
        "该任务不是死信，因此无法重新投递其请求。",
        "只有死信保留请求内容；其他任务请重新发送。",
    ),
    "task_not_found": (
        "没有这个任务：此处从未接受过，或结果已过期。",
        "检查任务编号；结果默认保留一小时。请重新发送请求。",
    ),
    "task_ended": (
        "任务已经结束，无法再取消。",
        "用 GET /v1/tasks/{id} 查看它是如何结束的。",
    ),
    "file_not_found": (
        "没有这个文件：从未在此上传，已被删除，或已过期。",
        "检查文件编号；文件最多保留 30 天。请重新上传。",
    ),
    "batch_not_found": (
        "没有这个批处理：从未在此创建，或 30 天后已被清除。",
        "检查编号；GET /v1/batches 会列出所有批处理。",
    ),
    "batch_ended": (
        "批处理已经结束，无法再取消。",
        "用 GET /v1/batches/{id} 查看它是如何结束的。",
    ),
    "response_not_found": (
        "没有这个回答：从未在此生成，已被删除，以 `store` 为 false 生成，或已过期。",
        "检查编号；回答与结果保留同样长的时间，默认一小时。",
    ),
    "invalid_image": (
        "应为图片的部分不是可接受的格式，或已损坏。",
        "发送完整的 JPEG、PNG、WEBP、GIF 或 BMP 文件。",
    ),
    "image_too_large": (
        "图片的像素数或视觉 token 数超过上限。",
        "缩小图片；说明中给出了上限和图片自身的数值。",
    ),
    "body_too_large": (
        "请求体的字节数超过上限。",
        "减少或缩小图片；说明中给出了上限。",
    ),
    "body_too_slow": (
        "请求体没有在规定时间内全部到达。",
        "换用更快的连接，或减小图片；运维人员参见 `body_timeout_s`。",
    ),
    "image_url_failed": (
        "图片的网址不允许访问，或从该网址得到的内容无法使用。",
        "确认该网址可公开访问并能及时响应，或直接发送图片内容。",
    ),
    "door_full": (
        "正在接收的请求合计占用的字节数已达上限。",
        "按 Retry-After 的秒数等待；运维人员参见 `max_inflight_bytes`。",
    ),
    "prompt_too_long": (
        "提示词、图片和回答合起来超出模型的上下文。",
        "缩短提示词，减少或缩小图片，或调低 max_tokens。",
    ),
    "queue_full": (
        "队列已满；请求被拒绝，没有保留任何内容。",
        "等待 Retry-After 给出的秒数后重新发送。",
    ),
    "too_many_connections": (
        "该客户端地址打开的连接数已达上限。",
        "复用已有连接，不要再打开新连接；运维人员：address_connections。",
    ),
    "headers_too_slow": (
        "请求行和头部传输时间过长。",
        "一次发送完整的请求；运维人员：header_timeout_s。",
    ),
    "headers_too_large": (
        "请求行和头部的字节数超过上限。",
        "减少或缩短头部，把较长的内容放进正文。",
    ),
    "unknown_transfer_coding": (
        "正文使用了本服务器不会还原的传输编码。",
        "按原样发送正文：带 Content-Length，或只用 `Transfer-Encoding: chunked`。",
    ),
    "rate_limited": (
        "租户的发送速度超过允许的速率；请求没有保留任何内容。",
        "等待 Retry-After 给出的秒数，并以更平稳的速度发送。",
    ),
    "tenant_over_quota": (
        "租户排队的任务已达上限；请求没有保留任何内容。",
        "等待 Retry-After 给出的秒数，直到自己的一些任务已经开始。",
    ),
    "idempotency_conflict": (
        "这个幂等键已用于另一个内容不同的请求。",
        "新请求请用新的键；同一个键只用来重发完全相同的请求。",
    ),
    "pictures_not_held": (
        "请求进入得太慢，其图片可能已被清理。",
        "请重新发送请求。",
    ),
    "storage_full": (
        "没有空间存放请求的图片；没有保留任何内容。",
        "等待 Retry-After；运维人员：清理磁盘空间，或提高图片存储的上限。",
    ),
    "queue_unavailable": (
        "无法连接队列服务器。",
        "等待 Retry-After；运维人员：运行 `forebay doctor` 查看原因。",
    ),
    "not_ready": (
        "最近没有收到已加载模型的 worker 的心跳。",
        "等待 worker 加载模型；运维人员：运行 `forebay doctor` 查看原因。",
    ),
    "answer_timeout": (
        "在普通(非流式)调用的等待时间内没有得到回答。",
        "改用流式回答，或用 POST /predict 提交并用 GET /result 查询。",
    ),
    "cancelled": (
        "任务已被客户端取消。",
        "如果仍然需要，请重新发送请求。",
    ),
    "expired": (
        "任务在得到回答之前已超过截止时间。",
        "给出更晚的截止时间，或在空闲时段发送。",
    ),
    "inference_failed": (
        "引擎无法回答这个请求。",
        "阅读说明；同样的请求很可能再次失败。",
    ),
    "answer_too_large": (
        "回答的字节数超过服务器为一个任务保存的上限。",
        "减少词元数(max_tokens)或回答数(n)；运维人员：max_answer_bytes。",
    ),
    "upstream_failed": (
        "工作进程背后的服务器返回的内容不是对这个请求的回答。",
        "阅读说明；运维人员：运行 `forebay doctor`，它会向上游请求一次回答。",
    ),
    "answer_changed": (
        "worker 在回答途中终止，第二次尝试的开头与已发送的文字不同。",
        "丢弃已收到的流式内容，重新发送请求。",
    ),
    "dead_letter": (
        "任务投递了三次，每次处理它的 worker 都终止或丢失了它。",
        "请求本身可能使引擎崩溃；运维人员：查看 worker 的日志。",
    ),
}
