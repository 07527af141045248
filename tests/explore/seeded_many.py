"""Seeded mistakes in waits for any of several jobs, and in submitting many."""

from __future__ import annotations

from mutant import MANY, Mutant

MANY_MUTANTS = [
    Mutant(
        "the word of the ends is read after the jobs are marked",
        "wait.c",
        (
            (
                "    error = futex_wait(ended, seen, left < HOST_SLICE ? left : HOST_SLICE);\n",
                "    seen = shared_load(ended, ACQUIRE);\n"
                "    error = futex_wait(ended, seen, left < HOST_SLICE ? left : HOST_SLICE);\n",
            ),
        ),
        MANY,
        "1 worker, any of 1 job",
    ),
    Mutant(
        "who waits for any is told before the job has ended",
        "schedule.c",
        (
            (
                "    unsigned flags;\n"
                "    int error = job_end(&pool->jobs, index, generation, owner, state, &flags);\n\n"
                "    if (!error)\n",
                "    unsigned flags = job_flags(job_at(&pool->jobs, index)->word);\n"
                "    int error;\n\n"
                "    schedule_announce(pool, index, generation, flags & JOB_ANY, submitter);\n"
                "    error = job_end(&pool->jobs, index, generation, owner, state, &flags);\n"
                "    flags &= ~(unsigned)JOB_ANY;\n"
                "    if (!error)\n",
            ),
        ),
        MANY,
        "1 worker, any of 1 job",
    ),
    Mutant(
        "one thread is woken of those that wait for any",
        "schedule.c",
        (
            (
                "        futex_wake(&control->any_ended, INT_MAX);\n",
                "        futex_wake(&control->any_ended, 1);\n",
            ),
        ),
        MANY,
        "1 worker, any of 1 job for each of 2 threads",
    ),
    Mutant(
        "a repair does not tell who waits for any",
        "schedule.c",
        (
            (
                "    if (flags & JOB_ANY) {\n",
                "    if ((flags & JOB_ANY) && pool->role != ROLE_SUPERVISOR) {\n",
            ),
        ),
        MANY,
        "1 worker, any of 1 job; a death",
    ),
    Mutant(
        "a cancelled job is not announced to who waits for any",
        "schedule.c",
        (
            (
                "    if (!job_cancel(&pool->jobs, index, generation, state, &flags))\n"
                "        return false;\n",
                "    if (!job_cancel(&pool->jobs, index, generation, state, &flags))\n"
                "        return false;\n"
                "    flags &= ~(unsigned)JOB_ANY;\n",
            ),
        ),
        MANY,
        "1 worker, any of 2 jobs, cancelled",
    ),
    Mutant(
        "a job that waits for any does not ask for the bell of the first",
        "worker.c",
        (
            (
                "    size_t i;\n\n    for (i = 0; i < watch->count; i++) {\n",
                "    size_t i;\n\n    for (i = 1; i < watch->count; i++) {\n",
            ),
        ),
        MANY,
        "2 workers, any of 2 jobs in a job",
    ),
    Mutant(
        "many jobs are submitted and only the first one wakes somebody",
        "many.c",
        (
            (
                "    if (done > 1)\n        schedule_wake_many(pool, done);\n",
                "",
            ),
        ),
        MANY,
        "1 worker, any of 2 jobs",
    ),
]
