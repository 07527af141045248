"""Seeded mistakes in how processes work together: waking, the path of a job, the repair."""

from __future__ import annotations

from mutant import POOL, WAKE, Mutant

POOL_MUTANTS = [
    # ---- Sleeping and waking ----
    Mutant(
        "no look at the ring before sleep",
        "worker.c",
        (
            (
                """\
        if (work_there(pool, watch) ||
            (!watch && shared_load(&pool_control(pool)->state, SEQ_CST) != CONTROL_RUNNING))
""",
                """\
        if (!watch && shared_load(&pool_control(pool)->state, SEQ_CST) != CONTROL_RUNNING)
""",
            ),
        ),
        WAKE,
        "1 worker, 1 job",
    ),
    Mutant(
        "the bell is read after the last look at the ring",
        "worker.c",
        (
            (
                "    if (timeout > 0) {\n        if (pool->host.release)",
                "    if (timeout > 0) {\n        bell = shared_load(&process->doorbell, ACQUIRE);\n"
                "        if (pool->host.release)",
            ),
        ),
        WAKE,
        "1 worker, 1 job",
    ),
    Mutant(
        "sleepers are looked for before the job is in the ring",
        "schedule.c",
        (
            (
                """\
    int error = ring_push(&pool->ready, index);

    if (!error)
        schedule_wake(pool, false);
    return error;
""",
                """\
    schedule_wake(pool, false);
    return ring_push(&pool->ready, index);
""",
            ),
        ),
        WAKE,
        "1 worker, 1 job",
    ),
    Mutant(
        "sleeps without saying so",
        "worker.c",
        (("        wake_sleep(words, pool->self - 1);\n", ""),),
        WAKE,
        "1 worker, 1 job",
    ),
    Mutant(
        "who was woken does not count as spinning, nor owes a look",
        "worker.c",
        (
            (
                "((wake_busy(words, pool->self - 1) & wake_spinning(pool->self - 1)) || "
                "timeout == 0)",
                "wake_busy(words, pool->self - 1) == UINT64_MAX",
            ),
        ),
        WAKE,
        "2 workers, 2 jobs together",
    ),
    Mutant(
        "a dead worker still counts as sleeping or spinning",
        "repair.c",
        (("    wake_busy(&pool_control(pool)->wake, worker);\n", ""),),
        WAKE,
        "2 workers, 1 job; a death, unreplaced",
    ),
    Mutant(
        "a repair that does not ring everybody",
        "repair.c",
        (
            (
                """\
    for (worker = 0; worker < pool->workers; worker++)
        schedule_ring(pool, worker);
""",
                "    (void)worker;\n",
            ),
        ),
        WAKE,
        "2 workers, 2 jobs; a death",
    ),
    Mutant(
        "who finds a job at its last look before sleep owes no wake-up to the next",
        "worker.c",
        (
            (
                "((wake_busy(words, pool->self - 1) & wake_spinning(pool->self - 1)) || "
                "timeout == 0)",
                "(wake_busy(words, pool->self - 1) & wake_spinning(pool->self - 1))",
            ),
        ),
        WAKE,
        "2 workers, 2 jobs together",
    ),
    Mutant(
        "who stops spinning does not wake the next worker",
        "worker.c",
        (
            (
                "    if (work_there(pool, NULL))\n        schedule_wake(pool, false);\n",
                "",
            ),
        ),
        WAKE,
        "2 workers, 2 jobs together",
    ),
    Mutant(
        "who waits for a job keeps a wake-up for one that it can't take",
        "worker.c",
        (
            (
                """\
        if (watch && work_there(pool, NULL) && !work_there(pool, watch))
            schedule_pass_on(pool);
""",
                "",
            ),
        ),
        POOL,
        "3 workers, a nested job beside another",
    ),
    Mutant(
        "a wake-up for what one can't take is kept from workers with lower numbers",
        "schedule.c",
        (
            (
                "    for (worker = 0; worker < pool->workers; worker++)\n        if (wake_asleep(",
                "    for (worker = pool->self; worker < pool->workers; worker++)\n"
                "        if (wake_asleep(",
            ),
        ),
        POOL,
        "3 workers, a nested job beside another",
    ),
    # ---- The path of a job, and the repair ----
    Mutant(
        "a worker ends by an old look at the ring when the pool is closed",
        "worker.c",
        (
            (
                "        uint32_t state = shared_load(&pool_control(pool)->state, SEQ_CST);\n\n",
                "\n",
            ),
            (
                "} else if (state != CONTROL_RUNNING) {",
                "} else if (shared_load(&pool_control(pool)->state, SEQ_CST) != CONTROL_RUNNING) {",
            ),
        ),
        POOL,
        "2 workers, 2 jobs, detached",
    ),
    Mutant(
        "a repair that frees the block of a finished job",
        "repair.c",
        (
            (
                """\
    } else if (job_generation(word) == generation && job_ended(word)) {
""",
                """\
    } else if (job_generation(word) == generation && job_ended(word)) {
        drop_result(pool, owner, index, wait_status);
""",
            ),
        ),
        POOL,
        "1 worker, 1 job in blocks; a death",
    ),
    Mutant(
        "a repair that leaves the block of a running job",
        "repair.c",
        (
            (
                """\
    if (result.kind == PAYLOAD_BLOCK && !job_free_result(&pool->jobs, result, index))
        arena_free_held(&pool->arena, result.block, owner);
""",
                "    (void)result, (void)owner;\n",
            ),
        ),
        POOL,
        "1 worker, 1 job in blocks; a death",
    ),
    Mutant(
        "the block is attached after the job's end",
        "run.c",
        (
            (
                """\
    if (job.result.kind == PAYLOAD_BLOCK && !job.result.size)
        arena_attach(&pool->arena, job.result.block, pool->self, index);
    error = schedule_end(pool, index, generation, pool->self, JOB_FINISHED);
""",
                """\
    error = schedule_end(pool, index, generation, pool->self, JOB_FINISHED);
    if (job.result.kind == PAYLOAD_BLOCK && !job.result.size)
        arena_attach(&pool->arena, job.result.block, pool->self, index);
""",
            ),
        ),
        POOL,
        "1 worker, 1 job in blocks",
    ),
    Mutant(
        "a result is freed before the blocks that it names",
        "job.c",
        (
            (
                "    /* The block that names the others goes last",
                "    arena_free_attached(table->arena, result.block, index);\n"
                "    /* The block that names the others goes last",
            ),
        ),
        POOL,
        "1 worker, 1 job that gives a block to nobody; a death",
    ),
    Mutant(
        "blocks are given before the slot names the result",
        "run.c",
        (
            (
                """\
    shared_store(&slot->result, payload_pack(job->result), RELEASE);
    arena_attach(&pool->arena, job->result.block, pool->self, job->index);
    for (i""",
                """\
    (void)slot;
    arena_attach(&pool->arena, job->result.block, pool->self, job->index);
    for (i""",
            ),
        ),
        POOL,
        "1 worker, 1 job that gives a block; a death",
    ),
    Mutant(
        "a block that was given is freed with the result although the host holds it",
        "arena.c",
        (
            (
                """\
    if (!is_held(arena, ref))
        return release(arena, ref, word);
""",
                "    return release(arena, ref, word);\n",
            ),
        ),
        POOL,
        "1 worker, 1 job that gives a block",
    ),
    Mutant(
        "the stack entry is written after the claim",
        "schedule.c",
        (
            (
                """\
    if (depth < PROCESS_STACK)
        shared_store(&process->stack[depth], job_id_make(job_generation(word), index), RELAXED);
    shared_store(&process->depth, depth + 1, RELEASE);
    if (job_claim(&pool->jobs, index, word, pool->self)) {
""",
                """\
    if (job_claim(&pool->jobs, index, word, pool->self)) {
        if (depth < PROCESS_STACK)
            shared_store(&process->stack[depth], job_id_make(job_generation(word), index), RELAXED);
        shared_store(&process->depth, depth + 1, RELEASE);
""",
            ),
        ),
        POOL,
        "1 worker, 1 job; a death",
    ),
    Mutant(
        "the stack entry is gone before the end is announced",
        "run.c",
        (
            (
                "    error = schedule_end(pool, index, generation, pool->self, JOB_FINISHED);\n",
                "    schedule_pop(pool);\n"
                "    error = schedule_end(pool, index, generation, pool->self, JOB_FINISHED);\n",
            ),
            (
                "        pool->timed--;\n    schedule_pop(pool);\n",
                "        pool->timed--;\n",
            ),
        ),
        POOL,
        "1 worker, 1 job; a death",
    ),
    Mutant(
        "a repair that does not finish what the dead announced by half",
        "repair.c",
        (
            (
                """\
        schedule_announce(pool, index, generation, job_flags(word),
                          schedule_submitter(pool, index));
""",
                "        (void)job;\n",
            ),
        ),
        POOL,
        "1 worker, 1 job; a death",
    ),
    Mutant(
        "a repair that does not rescue queued jobs",
        "job.c",
        (
            (
                """\
            else if (job_state(word) == JOB_QUEUED)
                rescue(context, index);
""",
                "            (void)rescue, (void)context;\n",
            ),
        ),
        POOL,
        "1 worker, a nested job; a death",
    ),
    Mutant(
        "a repair that leaves the slots which the dead held",
        "job.c",
        (
            (
                """\
        } else if (job_state(word) == JOB_HELD && job_owner(word) == owner) {
            job_free(table, index, owner);
""",
                "",
            ),
        ),
        POOL,
        "1 worker, a nested job; a death",
    ),
    Mutant(
        "a worker takes a slot before it says that it may have some",
        "submit.c",
        (
            (
                "    submit_touch(pool);\n    error = take_slot(pool, &index);\n",
                "    error = take_slot(pool, &index);\n    submit_touch(pool);\n",
            ),
        ),
        POOL,
        "1 worker, a nested job; a death",
    ),
    Mutant(
        "a job that is to be run again is put into no ring",
        "repair.c",
        (("    rescue(pool, index);\n    return true;\n", "    return true;\n"),),
        POOL,
        "1 worker, 1 job, retried; a death",
    ),
    Mutant(
        "no second look for completions after arming the eventfd",
        "future.c",
        (
            (
                "        shared_store(&control->notify_armed, 1, SEQ_CST);\n",
                "        shared_store(&control->notify_armed, 1, SEQ_CST);\n        return 0;\n",
            ),
        ),
        POOL,
        "1 worker, 2 jobs, told",
    ),
    Mutant(
        "the eventfd is written before the completion is in the ring",
        "schedule.c",
        (
            (
                """\
        if (ring_push(&pool->completed, index) != 0)
            shared_store(&control->notify_overflow, 1, SEQ_CST);
        if (shared_load(&control->notify_armed, SEQ_CST) &&
            shared_exchange(&control->notify_armed, 0, SEQ_CST))
            schedule_notify_host(pool);
""",
                """\
        if (shared_load(&control->notify_armed, SEQ_CST) &&
            shared_exchange(&control->notify_armed, 0, SEQ_CST))
            schedule_notify_host(pool);
        if (ring_push(&pool->completed, index) != 0)
            shared_store(&control->notify_overflow, 1, SEQ_CST);
""",
            ),
        ),
        POOL,
        "1 worker, 1 job, told",
    ),
]
