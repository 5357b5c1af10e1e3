"""The panels of the Grafana dashboard: titles in both languages, units, queries.

A query that counts what may never have happened ends in ``or vector(0)``: none is a figure, too.
``$__rate_interval`` is Grafana's: a few times as long as Prometheus' own interval.
"""

from __future__ import annotations

from dataclasses import dataclass

STAT, LINES = "stat", "timeseries"


@dataclass(frozen=True, slots=True)
class Query:
    """``legend``: as Grafana has it, with labels in double braces."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """``title`` and ``Row.title``: English, Chinese. ``limit``: where a line is drawn."""

    title: tuple[str, str]
    unit: str
    queries: tuple[Query, ...]
    kind: str = LINES
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under one heading."""

    title: tuple[str, str]
    panels: tuple[Panel, ...]


def _rate(metric: str, by: str = "", *, none: bool = False) -> str:
    """Return what a counter grows by in a second; ``none``: 0 where there is no such series."""
    total = f"sum{f' by ({by}) ' if by else ''}(rate({metric}[$__rate_interval]))"
    return f"{total} or vector(0)" if none else total


def _quantile(q: float, metric: str, by: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    grown = f"sum by ({labels}) (rate({metric}_bucket[$__rate_interval]))"
    return f"histogram_quantile({q}, {grown})"


def _quantiles(metric: str) -> tuple[Query, ...]:
    return tuple(Query(_quantile(q, metric), f"p{q * 100:g}") for q in (0.5, 0.95, 0.99))


_ERRORS = _rate('forebay_http_requests_total{status=~"5.."}', none=True)

ROWS = (
    Row(
        ("Overview", "总览"),
        (
            Panel(("Queue's server", "队列服务器"), "bool_on_off",
                  (Query("max(forebay_queue_up)"),), STAT),
            Panel(("Workers", "工作进程"), "short", (Query("max(forebay_workers)"),), STAT),
            Panel(("Tasks that wait", "等待的任务"), "short",
                  (Query('max(forebay_queue_tasks{place="waiting"})'),), STAT, 20),
            Panel(("Oldest waits", "最久等待"), "s",
                  (Query("max(forebay_queue_oldest_seconds)"),), STAT, 300),
            Panel(("Requests a second", "每秒请求"), "reqps",
                  (Query(_rate("forebay_http_requests_total")),), STAT),
            Panel(("Share of 5xx", "5xx 占比"), "percentunit",
                  (Query(f"({_ERRORS}) / {_rate('forebay_http_requests_total')}"),), STAT, 0.01),
            Panel(("P95 of answers", "回答的 P95"), "s",
                  (Query(_quantile(0.95, "vllm:e2e_request_latency_seconds")),), STAT, 3),
            Panel(("Alerts that fire", "正在触发的告警"), "short",
                  (Query("max(forebay_alerts_firing)"),), STAT, 1),
        ),
    ),
    Row(
        ("Door", "入口"),
        (
            Panel(("Requests by route", "各路由的请求"), "reqps",
                  (Query(_rate("forebay_http_requests_total", "route"), "{{route}}"),)),
            Panel(("Answers by status", "各状态码的回答"), "reqps",
                  (Query(_rate("forebay_http_requests_total", "status"), "{{status}}"),)),
            Panel(("Time of a request", "请求耗时"), "s",
                  _quantiles("forebay_http_request_seconds")),
            Panel(("First text of a chat", "聊天的首段文字"), "s",
                  _quantiles("forebay_first_token_seconds")),
            Panel(("Refused, by error", "被拒绝，按错误"), "reqps",
                  (Query(_rate("forebay_refused_total", "code"), "{{code}}"),)),
            Panel(("Callers", "调用者"), "reqps",
                  (Query(_rate("forebay_callers_total", "kind"), "{{kind}}"),)),
            Panel(("Tasks taken, and answers reused", "接受的任务与复用的回答"), "ops",
                  (Query(_rate("forebay_admitted_total"), "taken"),
                   Query(_rate("forebay_answers_reused_total", "how"), "{{how}}"),
                   Query(_rate("forebay_abandoned_total"), "abandoned"))),
            Panel(("Tokens taken, by kind", "接受的词元，按种类"), "short",
                  (Query(_rate("forebay_admitted_tokens_total", "kind"), "{{kind}}"),)),
            Panel(("Decoding a picture", "解码一张图片"), "s",
                  _quantiles("forebay_picture_decode_seconds")),
            Panel(("Decoders", "解码进程"), "short",
                  (Query("sum(forebay_decoders_busy)", "busy"),
                   Query("sum(increase(forebay_decoder_kills[$__rate_interval]))", "killed"))),
            Panel(("Pictures by URL", "按 URL 取的图片"), "ops",
                  (Query(_rate("forebay_fetches_total", "outcome"), "{{outcome}}"),)),
            Panel(("Bytes held", "占用的字节"), "bytes",
                  (Query("sum(forebay_held_bytes)", "requests"),
                   Query("sum(forebay_fetch_cache_bytes)", "fetched"))),
        ),
    ),
    Row(
        ("Queue", "队列"),
        (
            Panel(("Tasks by place", "各位置的任务"), "short",
                  (Query("max by (place) (forebay_queue_tasks)", "{{place}}"),), limit=20),
            Panel(("Tokens that wait", "等待的词元"), "short",
                  (Query("max(forebay_queue_waiting_tokens)"),)),
            Panel(("Oldest, and mean wait", "最久与平均等待"), "s",
                  (Query("max(forebay_queue_oldest_seconds)", "oldest"),
                   Query("max(forebay_queue_wait_seconds)", "mean"),
                   Query("max(forebay_queue_eta_error_seconds)", "error of what was told"))),
            Panel(("Tasks ended a second", "每秒结束的任务"), "ops",
                  (Query("max(deriv(forebay_queue_ended_tasks[$__rate_interval]))"),)),
            Panel(("Webhooks", "Webhook"), "short",
                  (Query("max(forebay_webhooks_waiting)", "wait"),
                   Query(_rate("forebay_webhook_attempts_total", none=True), "attempts a second"),
                   Query(_rate("forebay_webhooks_given_up_total"), "given up a second"))),
            Panel(("Workers replaced", "被替换的工作进程"), "short",
                  (Query("max(forebay_workers)", "workers"),
                   Query("sum(increase(forebay_worker_replaced_total[1h])) or vector(0)",
                         "replaced in an hour"))),
        ),
    ),
    Row(
        ("Workers", "工作进程"),
        (
            Panel(("Tasks in hand", "手中的任务"), "short",
                  (Query("max by (process) (forebay_worker_leases)", "{{process}}"),)),
            Panel(("Tasks ended, by outcome", "结束的任务，按结果"), "ops",
                  (Query(_rate("forebay_worker_tasks_total", "outcome"), "{{outcome}}"),)),
            Panel(("Delivered again, and dropped", "再次交付与放弃"), "ops",
                  (Query(_rate('forebay_worker_deliveries_total{kind="again"}', none=True),
                         "again"),
                   Query(_rate("forebay_worker_dropped_total", none=True), "dropped"))),
            Panel(("P95 of each phase", "各阶段的 P95"), "s",
                  (Query(_quantile(0.95, "forebay_task_phase_seconds", "phase"), "{{phase}}"),)),
            Panel(("Where workers are in life", "工作进程所处阶段"), "short",
                  (Query("sum by (phase) (forebay_worker_phase)", "{{phase}}"),)),
            Panel(("Writing results", "写入结果"), "s", _quantiles("forebay_result_write_seconds")),
        ),
    ),
    Row(
        ("Engine", "引擎"),
        (
            Panel(("Time of a step", "一步的耗时"), "s", _quantiles("forebay_engine_step_seconds")),
            Panel(("Parts of a step", "一步的各部分"), "percentunit",
                  (Query(_rate("forebay_engine_step_part_seconds_total", "part"), "{{part}}"),)),
            Panel(("Sequences in a step, and room", "一步中的序列与上限"), "short",
                  (Query("sum(rate(forebay_engine_step_rows_sum[$__rate_interval])) / "
                         "sum(rate(forebay_engine_step_rows_count[$__rate_interval]))", "mean"),
                   Query("max(forebay_engine_slots)", "room"))),
            Panel(("Tokens a second", "每秒词元"), "short",
                  (Query(_rate("forebay_engine_tokens_total", "kind"), "{{kind}}"),)),
            Panel(("Pictures a second", "每秒图片"), "ops",
                  (Query(_rate("forebay_engine_pictures_total", "how"), "{{how}}"),)),
            Panel(("KV cache", "KV 缓存"), "percentunit",
                  (Query("max by (engine) (vllm:kv_cache_usage_perc)", "{{engine}}"),)),
            Panel(("Put back for want of room", "因空间不足退回"), "ops",
                  (Query(_rate("forebay_engine_preempted_total")),)),
            Panel(("Run, and wait", "运行与等待"), "short",
                  (Query("sum(vllm:num_requests_running)", "run"),
                   Query("sum(vllm:num_requests_waiting)", "wait"))),
            Panel(("First token", "首个词元"), "s", _quantiles("vllm:time_to_first_token_seconds")),
            Panel(("Between two tokens", "两个词元之间"), "s",
                  _quantiles("vllm:inter_token_latency_seconds")),
            Panel(("From arrival to the end", "从到达到结束"), "s",
                  _quantiles("vllm:e2e_request_latency_seconds")),
            Panel(("By OpenTelemetry's names, P95", "OpenTelemetry 名称，P95"), "s",
                  (Query(_quantile(0.95, "gen_ai_server_request_duration_seconds"), "duration"),
                   Query(_quantile(0.95, "gen_ai_server_time_to_first_token_seconds"),
                         "first token"),
                   Query(_quantile(0.95, "gen_ai_server_time_per_output_token_seconds"),
                         "per token"))),
        ),
    ),
    Row(
        ("Machines", "机器"),
        (
            Panel(("Processors", "处理器"), "percentunit",
                  (Query("max by (host) (forebay_cpu_use_ratio)", "{{host}}"),), limit=0.7),
            Panel(("Memory", "内存"), "percentunit",
                  (Query("max by (host) (forebay_memory_use_ratio)", "{{host}}"),), limit=0.8),
            Panel(("Disk", "磁盘"), "percentunit",
                  (Query("max by (host) (forebay_disk_use_ratio)", "{{host}}"),), limit=0.9),
            Panel(("GPU", "GPU"), "percentunit",
                  (Query("max by (host, gpu) (forebay_gpu_use_ratio)", "{{host}} {{gpu}}"),),
                  limit=0.85),
            Panel(("Memory of the GPU", "GPU 显存"), "bytes",
                  (Query("max by (host, gpu) (forebay_gpu_memory_used_bytes)",
                         "{{host}} {{gpu}}"),)),
            Panel(("Share of the GPU's memory", "GPU 显存占比"), "percentunit",
                  (Query("max by (host, gpu) (forebay_gpu_memory_use_ratio)", "{{host}} {{gpu}}"),),
                  limit=0.85),
            Panel(("Temperature and power", "温度与功率"), "short",
                  (Query("max by (host, gpu) (forebay_gpu_temperature_celsius)",
                         "{{host}} {{gpu}} °C"),
                   Query("max by (host, gpu) (forebay_gpu_power_watts)", "{{host}} {{gpu}} W"))),
            Panel(("Memory of processes", "各进程的内存"), "bytes",
                  (Query("max by (process) (process_resident_memory_bytes)", "{{process}}"),)),
            Panel(("Processor of processes", "各进程的处理器"), "percentunit",
                  (Query(_rate("process_cpu_seconds_total", "process"), "{{process}}"),)),
            Panel(("Since the rules were judged", "距上次评判规则"), "s",
                  (Query("time() - max(forebay_alerts_judged_timestamp_seconds)"),), limit=180),
            Panel(("Messages about alerts", "告警消息"), "ops",
                  (Query(_rate("forebay_alert_pushes_total", none=True)),)),
            Panel(("To the collector", "发往收集器"), "ops",
                  (Query(_rate("forebay_otlp_exports_total", none=True), "messages"),
                   Query(_rate("forebay_spans_dropped_total"), "spans dropped"))),
        ),
    ),
)  # fmt: skip
