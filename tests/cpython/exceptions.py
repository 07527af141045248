"""Which of CPython's tests can't apply to libpool, and why: one line each."""

from __future__ import annotations

import fnmatch
import sys

__all__ = ["reason_to_skip"]

_ONE_JOB = "a worker's death and what pickle raises are that job's error, and the pool goes on"
_MANAGER = "looks into the manager thread and the queues, which libpool does not have"
_FORK_TASKS = "max_tasks_per_child works with fork as well, and does not change the start method"
_AT_ONCE = "counts workers that are started on demand; libpool starts all at once"
_NONE_BEGUN = "takes it for sure that a worker begins a call before the rest is cancelled"
_SHARED = "the call changes or waits for an object that it shares with the test, as in a thread"
_THREADS = "looks into the threads of the executor; here they are processes"

SKIPPED = {
    # A broken process or pickle breaks the whole pool there.
    "ProcessPool*Test.test_killed_child": _ONE_JOB,
    "ProcessPool*DeadlockTest.test_error_at_task_unpickle": _ONE_JOB,
    "ProcessPool*DeadlockTest.test_exit_at_task_unpickle": _ONE_JOB,
    "ProcessPool*DeadlockTest.test_*_during_result_unpickle_in_result_handler": _ONE_JOB,
    "ProcessPool*Test.test_traceback_when_child_process_terminates_abruptly": _ONE_JOB,
    "ProcessPool*DeadlockTest.test_shutdown_deadlock_pickle": _MANAGER,
    "ProcessPool*ShutdownTest.test_del_shutdown": _MANAGER,
    "ProcessPool*ShutdownTest.test_shutdown_no_wait": _MANAGER,
    "ProcessPool*Test.test_python_finalization_error": _MANAGER,
    "ProcessPool*Test.test_shutdown_no_wait_max_tasks_*": _MANAGER,
    "ProcessPool*Test.test_gc_during_max_tasks_worker_exit_*": _MANAGER,
    "ProcessPool*Test.test_force_shutdown_during_max_tasks_worker_exit": _MANAGER,
    "ProcessPool*Test.test_failed_worker_replacement_breaks_pool": _MANAGER,
    "ProcessPool*Test.test_idle_process_reuse_*": _AT_ONCE,
    "ProcessPoolSpawn*ShutdownTest.test_processes_terminate": _AT_ONCE,
    "ProcessPoolForkserver*ShutdownTest.test_processes_terminate": _AT_ONCE,
    "ProcessPoolForkProcess*Test.test_max_tasks_per_child": _FORK_TASKS,
    "ProcessPool*Test.test_max_tasks_per_child_defaults_to_spawn_context": _FORK_TASKS,
    "*ShutdownTest.test_cancel_futures": _NONE_BEGUN,
    "ThreadPoolFailingInitializerTest.*": _SHARED,
    "ThreadPoolExecutorTest.test_map_submits_without_iteration": _SHARED,
    "ThreadPoolExecutorTest.test_executor_map_current_future_cancel": _SHARED,
    "ThreadPoolExecutorTest.test_saturation": _SHARED,
    "ThreadPoolExecutorTest.test_default_workers": "as many workers as cores, as with processes",
    "ThreadPoolExecutorTest.test_idle_thread_reuse": _THREADS,
    "ThreadPoolShutdownTest.test_threads_terminate": _THREADS,
    "ThreadPoolShutdownTest.test_context_manager_shutdown": _THREADS,
    "ThreadPoolShutdownTest.test_del_shutdown": _THREADS,
    "ThreadPoolShutdownTest.test_shutdown_no_wait": _THREADS,
    "ThreadPoolShutdownTest.test_thread_names_*": _THREADS,
    "WithThreadsTestPool.test_async_timeout": _SHARED,
    "With*TestPool.test_resource_warning": "sets the pool's private state; libpool has none there",
    "With*TestPoolWorkerErrors.test_unpickleable_result": "the lambda can be pickled by libpool",
    "With*TestPoolWorkerLifetime.test_pool_worker_lifetime": "calls the private _repopulate_pool",
}

if sys.version_info < (3, 13):  # later ones allow for it
    SKIPPED["ThreadPoolShutdownTest.test_cancel_futures_wait_false"] = _NONE_BEGUN


def reason_to_skip(case: str, test: str) -> str | None:
    """Why a test is not run, None if it is.

    Parameters
    ----------
    case : str
        The name of the `TestCase`.
    test : str
        The name of the method.
    """
    name = f"{case}.{test}"
    for pattern, reason in SKIPPED.items():
        if fnmatch.fnmatchcase(name, pattern):
            return reason
    return None
