"""The metrics of a worker process, explained in ``metrics.toml``: its tasks and its engine."""

from __future__ import annotations

from forebay.core.events import StepStats
from forebay.ops.metric_book import AlsoCalled, MetricBook, facts

PROVIDER = "forebay"
OPERATION = "chat"


class WorkerMetrics(MetricBook):
    """``model``: as clients know it; ``worker``: its name, which is vLLM's ``engine``."""

    def __init__(self, model: str = "", worker: str = "") -> None:
        super().__init__()
        self._of = (model, worker)
        self._otel_of = (OPERATION, PROVIDER, model)
        self._steps = False
        self._worker()
        self._engine()
        self._vllm()
        self._vllm_times()
        self._gen_ai()

    def _worker(self) -> None:
        self.leases = self._gauge("forebay_worker_leases")
        self.free_tokens = self._gauge("forebay_worker_free_tokens")
        self.phase = self._gauge("forebay_worker_phase")
        self.still_seconds = self._gauge("forebay_worker_still_seconds")
        self.deliveries = self._counter("forebay_worker_deliveries_total")
        self.ended = self._counter("forebay_worker_tasks_total")
        self.dropped = self._counter("forebay_worker_dropped_total")
        self.phase_seconds = self._histogram("forebay_task_phase_seconds")
        self.result_seconds = self._histogram("forebay_result_write_seconds")

    def _engine(self) -> None:
        self.step_seconds = self._histogram("forebay_engine_step_seconds")
        parts = self._counter("forebay_engine_step_part_seconds_total")
        self._schedule, self._vision = parts.labels("schedule"), parts.labels("vision")
        self._beside, self._decoder = parts.labels("vision_beside"), parts.labels("decoder")
        self._sample = parts.labels("sample")
        self.step_rows = self._histogram("forebay_engine_step_rows")
        self.slots = self._gauge("forebay_engine_slots")
        tokens = self._counter("forebay_engine_tokens_total")
        self._prefilled, self._reused = tokens.labels("prefill"), tokens.labels("reused")
        self._decoded = tokens.labels("decode")
        pictures = self._counter("forebay_engine_pictures_total")
        self._encoded, self._pictures_reused = pictures.labels("encoded"), pictures.labels("reused")
        self.preempted = self._counter("forebay_engine_preempted_total")
        self.kv_blocks = self._gauge("forebay_kv_blocks")

    def _vllm(self) -> None:
        of = self._of
        self.vllm_running = self._gauge("vllm:num_requests_running").labels(*of)
        self.vllm_waiting = self._gauge("vllm:num_requests_waiting").labels(*of)
        self._kv_usage = self._gauge("vllm:kv_cache_usage_perc")
        self.vllm_prompt_tokens = self._counter("vllm:prompt_tokens_total").labels(*of)
        self.vllm_generation_tokens = self._counter("vllm:generation_tokens_total").labels(*of)
        self.vllm_prefix_queries = self._counter("vllm:prefix_cache_queries_total").labels(*of)
        self.vllm_prefix_hits = self._counter("vllm:prefix_cache_hits_total").labels(*of)
        self.vllm_mm_queries = self._counter("vllm:mm_cache_queries_total").labels(*of)
        self.vllm_mm_hits = self._counter("vllm:mm_cache_hits_total").labels(*of)
        self.vllm_preemptions = self._counter("vllm:num_preemptions_total").labels(*of)
        self._success = self._counter("vllm:request_success_total")
        self.vllm_request_prompt = self._histogram("vllm:request_prompt_tokens").labels(*of)
        self.vllm_request_generation = self._histogram("vllm:request_generation_tokens").labels(*of)
        self.vllm_step_tokens = self._histogram("vllm:iteration_tokens_total").labels(*of)

    def _vllm_times(self) -> None:
        of = self._of
        self.vllm_first_token = self._histogram("vllm:time_to_first_token_seconds").labels(*of)
        name = "vllm:inter_token_latency_seconds"
        between = self._histogram(name)
        self.vllm_between_tokens = between.labels(*of)
        older = facts()["vllm:time_per_output_token_seconds"]
        self.registry.register(AlsoCalled(between, name, older))
        mean = self._histogram("vllm:request_time_per_output_token_seconds")
        self.vllm_token_mean = mean.labels(*of)
        self.vllm_latency = self._histogram("vllm:e2e_request_latency_seconds").labels(*of)
        self.vllm_queue_time = self._histogram("vllm:request_queue_time_seconds").labels(*of)
        inference = self._histogram("vllm:request_inference_time_seconds")
        self.vllm_inference_time = inference.labels(*of)
        self.vllm_prefill_time = self._histogram("vllm:request_prefill_time_seconds").labels(*of)
        self.vllm_decode_time = self._histogram("vllm:request_decode_time_seconds").labels(*of)

    def _gen_ai(self) -> None:
        self._otel_duration = self._histogram("gen_ai_server_request_duration_seconds")
        token = self._histogram("gen_ai_server_time_per_output_token_seconds")
        self.otel_token = token.labels(*self._otel_of)
        first = self._histogram("gen_ai_server_time_to_first_token_seconds")
        self.otel_first_token = first.labels(*self._otel_of)

    def see_success(self, reason: str) -> None:
        """Count an answered request by why its answer ended."""
        self._success.labels(*self._of, reason).inc()

    def see_duration(self, seconds: float, error: str = "") -> None:
        """Note how long a request took to its end; ``error``: the code, where it failed."""
        self._otel_duration.labels(*self._otel_of, error).observe(seconds)

    def see_life(self, phase: str, *, held: int, free_tokens: int, still_s: float) -> None:
        """Set the gauges of the worker itself.

        An engine that steps tells what it runs; of one elsewhere everything that is held runs.
        """
        self.leases.set(held)
        self.free_tokens.set(free_tokens)
        self.still_seconds.set(still_s)
        self.phase.clear()
        self.phase.labels(phase).set(1)
        if not self._steps or not held:
            self.vllm_running.set(held)
            self.vllm_waiting.set(0)

    def see_step(self, stats: StepStats) -> None:
        """Note one step of the engine. Called from its thread, after every step."""
        self._steps = True
        self.step_seconds.observe(stats.step_s)
        self.step_rows.observe(stats.decode_tokens)
        self.vllm_step_tokens.observe(stats.decode_tokens + stats.prefill_tokens)
        self._schedule.inc(stats.schedule_s)
        self._vision.inc(stats.vision_s)
        self._beside.inc(stats.vision_beside_s)
        self._decoder.inc(stats.decoder_s)
        self._sample.inc(stats.sample_s)
        self._decoded.inc(stats.decode_tokens)
        self.vllm_running.set(stats.running)
        self.vllm_waiting.set(stats.waiting)
        self.see_blocks(stats.kv_blocks_used, stats.kv_blocks_total)
        self._see_caches(stats)

    def see_blocks(self, used: int, total: int) -> None:
        """Set how full the KV cache is."""
        self.kv_blocks.labels("used").set(used)
        self.kv_blocks.labels("total").set(total)
        self._kv_usage.labels(*self._of).set(used / max(1, total))

    def _see_caches(self, stats: StepStats) -> None:
        """Count what was computed and what the caches spared; most steps have none of either."""
        if stats.prefill_tokens or stats.prefix_tokens:
            self._prefilled.inc(stats.prefill_tokens)
            self._reused.inc(stats.prefix_tokens)
            self.vllm_prefix_queries.inc(stats.prefill_tokens + stats.prefix_tokens)
            self.vllm_prefix_hits.inc(stats.prefix_tokens)
        if stats.images_encoded or stats.images_reused:
            self._encoded.inc(stats.images_encoded)
            self._pictures_reused.inc(stats.images_reused)
            self.vllm_mm_queries.inc(stats.images_encoded + stats.images_reused)
            self.vllm_mm_hits.inc(stats.images_reused)
        if stats.preempted:
            self.preempted.inc(stats.preempted)
            self.vllm_preemptions.inc(stats.preempted)
