/* Pools whose workers host Python: the public calls, and the hooks of the workers. */
#include "interpreter.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

void pool_python_config_init(struct pool_python_config *config)
{
    *config = (struct pool_python_config){.size = sizeof *config};
}

const char *pool_python_version(void)
{
    return Py_GetVersion();
}

/* ---- Making pools --------------------------------------------------------------------------- */

static int check_file(const char *path, int mode)
{
    return access(path, mode) < 0 ? -errno : 0;
}

/* One that belongs to another version would silently give no packages. */
static int check_venv(const char *venv)
{
    static const char *const parts[] = {
        "pyvenv.cfg", "bin/python",
        "lib/python" Py_STRINGIFY(PY_MAJOR_VERSION) "." Py_STRINGIFY(PY_MINOR_VERSION)};
    char path[4096];

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        int length = snprintf(path, sizeof path, "%s/%s", venv, parts[i]);
        if (length < 0 || (size_t)length >= sizeof path)
            return -ENAMETOOLONG;
        int error = check_file(path, F_OK);
        if (error)
            return error;
    }
    return 0;
}

int host_check(const struct pool_python_config *python)
{
    int error = 0;

    if (python->size != sizeof *python || (python->venv && python->executable))
        return -EINVAL;
    if (Py_IsInitialized())
        return -EBUSY;
    if (python->venv)
        error = check_venv(python->venv);
    if (!error && python->executable)
        error = check_file(python->executable, X_OK);
    if (!error && python->script)
        error = check_file(python->script, R_OK);
    return error;
}

/* The supervisor is forked within this call and never returns from it, so its workers, too, have
 * the context and the strings as they are now, on this stack. */
int pool_python_create(struct pool **out, const struct pool_config *config,
                       const struct pool_python_config *python)
{
    struct interpreter interpreter = {0};
    struct pool_config with_host;
    struct pool_host host = host_hooks;

    *out = NULL;
    if (config)
        with_host = *config;
    else
        pool_config_init(&with_host);
    if (with_host.size != sizeof with_host || with_host.host || with_host.command)
        return -EINVAL;
    if (python)
        interpreter.config = *python;
    else
        pool_python_config_init(&interpreter.config);
    int error = host_check(&interpreter.config);
    if (error)
        return error;
    host.context = &interpreter;
    with_host.host = &host;
    return pool_create(out, &with_host);
}

int pool_python_serve(struct pool *pool, const struct pool_python_config *python)
{
    struct interpreter interpreter = {0};
    struct pool_host host = host_hooks;

    if (python)
        interpreter.config = *python;
    else
        pool_python_config_init(&interpreter.config);
    int error = host_check(&interpreter.config);
    if (error)
        return error;
    host.context = &interpreter;
    return pool_serve(pool, &host);
}

/* ---- Hooks ---------------------------------------------------------------------------------- */

static int on_start(void *context, struct pool *pool, unsigned worker)
{
    struct interpreter *interpreter = context;

    interpreter->pool = pool;
    interpreter->worker = worker;
    int status = interpreter_start(interpreter);
    /* Another worker would find the same script and the same files. */
    if (status)
        _exit(status);
    return 0;
}

static int on_run(void *context, struct pool_job *job)
{
    return call_run(context, job);
}

/* Threads that jobs have left are waited for, and functions registered with atexit run. */
static void on_stop(void *context)
{
    (void)context;
    Py_FinalizeEx();
}

static void on_release(void *context)
{
    ((struct interpreter *)context)->suspended = PyEval_SaveThread();
}

static void on_acquire(void *context)
{
    PyEval_RestoreThread(((struct interpreter *)context)->suspended);
}

/* No fork hook: there is no interpreter yet in the processes that fork for the pool. */
const struct pool_host host_hooks = {
    .size = sizeof(struct pool_host),
    .start = on_start,
    .run = on_run,
    .stop = on_stop,
    .release = on_release,
    .acquire = on_acquire,
};
