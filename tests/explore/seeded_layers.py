"""Seeded mistakes in the layers that hold things: ring, free map, arena, job."""

from __future__ import annotations

from mutant import ARENA, FREEMAP, HOLDERS, JOB, RING, Mutant

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
                release(arena, ref, word);
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
    # ---- Blocks that are held ----
    Mutant(
        "who holds a block looks at it first, and sets its bit after",
        "arena.c",
        (
            (
                """\
    set_holder(arena, ref, owner);
    at = word_of(arena, ref_class(ref), ref_index(ref));
    word = shared_load(at, SEQ_CST);
    /* RELEASED -> RELEASED, another version: whoever has seen no holder fails to free the block;
     * who looks from here on sees the bit. It fails when others hold it or it is FREE. */
    while (word_state(word) == BLOCK_RELEASED)
        if (shared_cas(at, &word, next_version(word), SEQ_CST))
            return true;
    if (word_state(word) == BLOCK_SHARED || word_state(word) == BLOCK_ATTACHED)
        return true;
    arena_drop(arena, ref, owner);
    return false;
""",
                """\
    at = word_of(arena, ref_class(ref), ref_index(ref));
    word = shared_load(at, SEQ_CST);
    if (word_state(word) != BLOCK_SHARED && word_state(word) != BLOCK_ATTACHED)
        return false;
    set_holder(arena, ref, owner);
    return true;
""",
            ),
        ),
        HOLDERS,
        "1 holds what 1 frees",
    ),
    Mutant(
        "who comes too late to hold a block leaves its bit",
        "arena.c",
        (
            (
                """\
        return true;
    arena_drop(arena, ref, owner);
    return false;
""",
                """\
        return true;
    return false;
""",
            ),
        ),
        HOLDERS,
        "1 holds what 1 frees",
    ),
    Mutant(
        "a released block is held without a new version",
        "arena.c",
        (
            (
                "        if (shared_cas(at, &word, next_version(word), SEQ_CST))\n",
                """\
        if (true)
""",
            ),
        ),
        HOLDERS,
        "2 hold what 1 frees",
    ),
    Mutant(
        "a released block has no stamp",
        "arena.c",
        (
            (
                """\
    return ref_valid(arena, ref) &&
           pass_on(arena, ref, owner, block_word(BLOCK_SHARED, stamp_of(arena, ref)));
""",
                """\
    return ref_valid(arena, ref) && pass_on(arena, ref, owner, block_word(BLOCK_SHARED, 0));
""",
            ),
        ),
        HOLDERS,
        "2 hold once what 1 frees",
    ),
    Mutant(
        "a block is reclaimed without a look at who holds it",
        "arena.c",
        (
            (
                """\
    if (word_state(word) == BLOCK_RELEASED && !is_held(arena, ref))
""",
                """\
    if (word_state(word) == BLOCK_RELEASED)
""",
            ),
        ),
        HOLDERS,
        "1 holds what 1 frees",
    ),
    Mutant(
        "who drops a block leaves it to others to reclaim it",
        "arena.c",
        (
            (
                """\
        shared_and(holders, ~holder_bit(owner), SEQ_CST);
    reclaim(arena, ref);
}
""",
                """\
        shared_and(holders, ~holder_bit(owner), SEQ_CST);
}
""",
            ),
        ),
        HOLDERS,
        "1 holds what 1 frees",
    ),
    Mutant(
        "who frees a block leaves it to its holders to reclaim it",
        "arena.c",
        (
            (
                """\
        !shared_cas(at, &word, block_word(BLOCK_RELEASED, (uint32_t)(word >> 32)), SEQ_CST))
        return false;
    reclaim(arena, ref);
""",
                """\
        !shared_cas(at, &word, block_word(BLOCK_RELEASED, (uint32_t)(word >> 32)), SEQ_CST))
        return false;
""",
            ),
        ),
        HOLDERS,
        "1 holds what 1 frees",
    ),
    Mutant(
        "who frees a shared block looks at its holders first",
        "arena.c",
        (
            (
                """\
    /* SHARED -> RELEASED: one wins. */
    if (word_state(word) != BLOCK_SHARED ||
""",
                """\
    if (word_state(word) == BLOCK_SHARED && !is_held(arena, ref))
        return release(arena, ref, word);
    if (word_state(word) != BLOCK_SHARED ||
""",
            ),
        ),
        HOLDERS,
        "1 holds what 1 frees",
    ),
    Mutant(
        "an argument is freed although its worker keeps it",
        "arena.c",
        (
            (
                """\
    if (!is_held(arena, ref))
        return release(arena, ref, word);
""",
                """\
    return release(arena, ref, word);
""",
            ),
        ),
        HOLDERS,
        "a job keeps its argument",
    ),
    Mutant(
        "a repair that leaves the bits of the dead",
        "arena.c",
        (
            (
                """\
            arena_drop(arena, ref, owner);
            word = shared_load""",
                """\
            word = shared_load""",
            ),
        ),
        HOLDERS,
        "a job keeps its argument; a death",
    ),
    Mutant(
        "a repair that clears the dead's bits of shared and released blocks only",
        "arena.c",
        (
            (
                """\
            arena_drop(arena, ref, owner);
            word = shared_load(word_of(arena, size_class, index), ACQUIRE);
""",
                """\
            word = shared_load(word_of(arena, size_class, index), ACQUIRE);
            if (word_state(word) >= BLOCK_ATTACHED)
                arena_drop(arena, ref, owner);
""",
            ),
        ),
        HOLDERS,
        "1 holds what 1 frees; a death",
    ),
    Mutant(
        "a repair that clears the dead's bits and reclaims nothing",
        "arena.c",
        (
            (
                """\
            arena_drop(arena, ref, owner);
            word = shared_load""",
                """\
            shared_and(holders_of(arena, size_class, index), ~holder_bit(owner), SEQ_CST);
            word = shared_load""",
            ),
        ),
        HOLDERS,
        "a job keeps its argument; a death",
    ),
    Mutant(
        "a block of one's own is released before its bit is set",
        "arena.c",
        (
            (
                """\
    set_holder(arena, ref, owner);
    return pass_on(arena, ref, owner, block_word(BLOCK_RELEASED, stamp_of(arena, ref)));
""",
                """\
    if (!pass_on(arena, ref, owner, block_word(BLOCK_RELEASED, stamp_of(arena, ref))))
        return false;
    set_holder(arena, ref, owner);
    return true;
""",
            ),
        ),
        HOLDERS,
        "2 have blocks of their own; a death",
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
