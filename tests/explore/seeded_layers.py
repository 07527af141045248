"""Seeded mistakes in the layers that hold things: ring, free map, arena, job."""

from __future__ import annotations

from mutant import ARENA, FREEMAP, JOB, RING, Mutant

LAYER_MUTANTS = [
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
    Mutant(
        "a full cell is looked for before a sealed one",
        "ring.c",
        (
            (
                """\
        if (found == SEALED) /* looks like a full cell of the last lap before the sequence wraps */
            return DRAINED;
        if (sequence == empty + 1) {
            cursor->position = head;
            cursor->cell = found;
            cursor->level = level;
            cursor->item = cell_item(found);
            return FOUND;
        }
""",
                """\
        if (sequence == empty + 1) {
            cursor->position = head;
            cursor->cell = found;
            cursor->level = level;
            cursor->item = cell_item(found);
            return FOUND;
        }
        if (found == SEALED)
            return DRAINED;
""",
            ),
        ),
        RING,
        "1 + 2, 2 cells, grows, then wraps",
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
]
