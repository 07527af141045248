"""The seeded mistakes, for mutants.py: each a change to one file of libpool/src."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """`changes` are pairs of a text that is in `file` exactly once, and what takes its place."""

    name: str
    file: str
    changes: tuple[tuple[str, str], ...]
    test: str
    scenario: str


RING, FREEMAP, ARENA, JOB, WAKE, POOL = (
    f"test_explore_{layer}" for layer in ("ring", "freemap", "arena", "job", "wake", "pool")
)

MUTANTS = [
    # ---- The ring ----
    Mutant(
        "plain Vyukov cell: the index is won first, the cell filled after",
        "ring.c",
        (
            (
                """\
            if (!shared_cas(cell, &found, cell_make(item, empty + 1), SEQ_CST))
                continue;
            shared_cas(&words->tail, &tail, tail + 1, RELEASE);
""",
                """\
            if (!shared_cas(&words->tail, &tail, tail + 1, ACQ_REL))
                continue;
            shared_store(cell, cell_make(item, empty + 1), SEQ_CST);
""",
            ),
        ),
        RING,
        "2 + 1, 2 cells, full; a death",
    ),
    Mutant(
        "cell filled without compare-and-swap",
        "ring.c",
        (
            (
                """\
            if (!shared_cas(cell, &found, cell_make(item, empty + 1), SEQ_CST))
                continue;
""",
                """\
            shared_store(cell, cell_make(item, empty + 1), SEQ_CST);
""",
            ),
        ),
        RING,
        "2 + 1, 4 cells",
    ),
    Mutant(
        "discard without compare-and-swap",
        "ring.c",
        (
            (
                """\
    shared_cas(cell_at(ring, cursor->level, cursor->position), &cell,
               cell_make(0, cell_sequence(cell) + 1), ACQ_REL);
""",
                """\
    shared_store(cell_at(ring, cursor->level, cursor->position),
                 cell_make(0, cell_sequence(cell) + 1), RELEASE);
""",
            ),
        ),
        RING,
        "1 + 2, 2 cells, full",
    ),
    Mutant(
        "no sealing of a drained level",
        "ring.c",
        (
            (
                """\
        if (shared_cas(cell, &found, SEALED, ACQ_REL))
            return DRAINED;
""",
                """\
        return DRAINED;
""",
            ),
        ),
        RING,
        "2 + 1, 2 cells, grows",
    ),
    Mutant(
        "a tail that lags is not moved on",
        "ring.c",
        (
            (
                """\
            if (shared_cas(&words->tail, &tail, tail + 1, ACQ_REL))
                tail++;
            continue;
""",
                """\
            tail = shared_load(&words->tail, ACQUIRE);
            continue;
""",
            ),
        ),
        RING,
        "2 + 1, 2 cells, full; a death",
    ),
    Mutant(
        "consumers move on without looking whether producers did",
        "ring.c",
        (
            (
                """\
        if (shared_load(&header->producer, SEQ_CST) <= level)
            return EMPTY;
""",
                "",
            ),
        ),
        RING,
        "1 + 1, 2 cells, grows",
    ),
    # ---- The free map and the arena ----
    Mutant(
        "summary cleared without looking again",
        "freemap.c",
        (
            (
                """\
    if (shared_load(word_at(map, level, word), SEQ_CST) != 0)
        set_summary(map, level, word);
}

bool""",
                """\
}

bool""",
            ),
        ),
        FREEMAP,
        "2 processes, 2 words",
    ),
    Mutant(
        "a repair that leaves summaries as they are",
        "freemap.c",
        (
            (
                "uint32_t word, words = count ? ((count - 1) >> 6) + 1 : 0;",
                "uint32_t word, words = 0;\n    (void)count;",
            ),
        ),
        FREEMAP,
        "2 processes, 2 words; a death",
    ),
    Mutant(
        "a freed block's hint is given before it is free",
        "arena.c",
        (
            (
                """\
    if (!ref_valid(arena, ref) ||
        !shared_cas(""",
                """\
    if (ref_valid(arena, ref))
        freemap_set(&arena->size_class[size_class].map, ref_index(ref));
    if (!ref_valid(arena, ref) ||
        !shared_cas(""",
            ),
            (
                """\
        return false;
    freemap_set(&arena->size_class[size_class].map, ref_index(ref));
    return true;
""",
                """\
        return false;
    return true;
""",
            ),
        ),
        ARENA,
        "2 hold 2 blocks",
    ),
    Mutant(
        "a block is held without compare-and-swap",
        "arena.c",
        (
            (
                """\
    return shared_cas(word_of(arena, size_class, index), &expected, block_word(BLOCK_HELD, owner),
                      ACQ_REL);
""",
                """\
    if (shared_load(word_of(arena, size_class, index), ACQUIRE) != expected)
        return false;
    shared_store(word_of(arena, size_class, index), block_word(BLOCK_HELD, owner), RELEASE);
    return true;
""",
            ),
        ),
        ARENA,
        "2 hold 2 large blocks, trimmed",
    ),
    Mutant(
        "a repair that frees no held blocks",
        "arena.c",
        (
            (
                """\
            if (word == block_word(BLOCK_HELD, owner))
                release(arena, block_ref_make(size_class, index), word);
            else if (word == FREE_WORD)
                freemap_set(map, index);
""",
                """\
            if (word == FREE_WORD)
                freemap_set(map, index);
""",
            ),
        ),
        ARENA,
        "2 hold 2 blocks; a death",
    ),
    Mutant(
        "a repair that gives no lost hints",
        "arena.c",
        (
            (
                """\
            else if (word == FREE_WORD)
                freemap_set(map, index);
""",
                "",
            ),
        ),
        ARENA,
        "2 hold 2 blocks; a death",
    ),
    Mutant(
        "memory of free blocks is given back without holding them",
        "arena.c",
        (
            (
                "                !hold(arena, size_class, index, owner))\n"
                "                continue;\n",
                "                shared_load(word_of(arena, size_class, index), ACQUIRE))\n"
                "                continue;\n",
            ),
        ),
        ARENA,
        "2 hold 2 large blocks, trimmed",
    ),
    # ---- The job ----
    Mutant(
        "the end is a plain store, so that a flag is overlooked",
        "job.c",
        (
            (
                """\
        if (shared_cas(&job->word, &word, job_word_make(generation, owner, *flags, state), ACQ_REL))
            return 0;
""",
                """\
        shared_store(&job->word, job_word_make(generation, owner, *flags, state), RELEASE);
        return 0;
""",
            ),
        ),
        JOB,
        "claim and cancel",
    ),
    Mutant(
        "a claim without compare-and-swap",
        "job.c",
        (
            (
                """\
    return shared_cas(&job_at(table, index)->word, &seen,
                      job_word_make(job_generation(seen), owner, job_flags(seen), JOB_RUNNING),
                      ACQ_REL);
""",
                """\
    shared_store(&job_at(table, index)->word,
                 job_word_make(job_generation(seen), owner, job_flags(seen), JOB_RUNNING), RELEASE);
    return true;
""",
            ),
        ),
        JOB,
        "two claim",
    ),
    Mutant(
        "a flag is set without looking at the state",
        "job.c",
        (
            (
                """\
        if (job_generation(word) != generation || job_state(word) < JOB_QUEUED)
            return -ESTALE;
        if (job_ended(word))
            return 1;
        if (job_flags(word) & flag)
""",
                """\
        if (job_generation(word) != generation || job_state(word) < JOB_QUEUED)
            return -ESTALE;
        if (job_flags(word) & flag)
""",
            ),
        ),
        JOB,
        "release",
    ),
    Mutant(
        "who sleeps on the word does not look at it after the flag is set",
        "future.c",
        (
            (
                """\
    word = shared_load(&job->word, ACQUIRE);
    if (job_ended(word) || job_generation(word) != future->generation)
        return 0;
    if (deadline""",
                """\
    word = shared_load(&job->word, ACQUIRE);
    if (deadline""",
            ),
        ),
        JOB,
        "claim and cancel",
    ),
    Mutant(
        "collect without the generation",
        "job.c",
        (
            (
                """\
    while (job_ended(word) && job_generation(word) == generation)
        if (shared_cas(&job->word, &word, job_word_make(generation + 1, owner, 0, JOB_HELD),
""",
                """\
    generation = job_generation(word);
    while (job_ended(word))
        if (shared_cas(&job->word, &word, job_word_make(generation + 1, owner, 0, JOB_HELD),
""",
            ),
        ),
        JOB,
        "two wait, in 2 rounds",
    ),
    Mutant(
        "an end by a worker whose job was taken from it",
        "job.c",
        (
            (
                """\
        if (state == JOB_FINISHED && (*flags & JOB_DOOMED))
            return -ECANCELED;
""",
                "",
            ),
        ),
        JOB,
        "finish and kill",
    ),
    Mutant(
        "the end is announced before it is there",
        "schedule.c",
        (
            (
                """\
    int error = job_end(&pool->jobs, index, generation, owner, state, &flags);

    if (!error)
        schedule_announce(pool, index, generation, flags, submitter);
    return error;
""",
                """\
    flags = job_flags(shared_load(&job_at(&pool->jobs, index)->word, ACQUIRE));
    schedule_announce(pool, index, generation, flags, submitter);
    return job_end(&pool->jobs, index, generation, owner, state, &flags);
""",
            ),
        ),
        JOB,
        "two claim",
    ),
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
    # ---- The whole path of a job ----
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
    if (result.kind == PAYLOAD_BLOCK && !arena_free_attached(&pool->arena, result.block, index))
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
    if (job.result.kind == PAYLOAD_BLOCK)
        arena_attach(&pool->arena, job.result.block, pool->self, index);
    error = schedule_end(pool, index, generation, pool->self, JOB_FINISHED);
""",
                """\
    error = schedule_end(pool, index, generation, pool->self, JOB_FINISHED);
    if (job.result.kind == PAYLOAD_BLOCK)
        arena_attach(&pool->arena, job.result.block, pool->self, index);
""",
            ),
        ),
        POOL,
        "1 worker, 1 job in blocks",
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
                "    touch(pool);\n    error = take_slot(pool, &index);\n",
                "    error = take_slot(pool, &index);\n    touch(pool);\n",
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
