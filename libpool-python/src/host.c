/* Pools whose workers host Python: the public calls, and the hooks of the workers. */
#include "interpreter.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void pool_python_config_init_size(struct pool_python_config *config, size_t size)
{
    memset(config, 0, size);
    config->size = size;
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

/* What can be known before the interpreter starts. */
static int check_config(const struct pool_python_config *python)
{
    struct stat status;
    int error = 0;

    if (python->venv && python->executable)
        return -EINVAL;
    if (Py_IsInitialized())
        return -EBUSY;
    if (python->venv)
        error = check_venv(python->venv);
    if (!error && python->executable)
        error = check_file(python->executable, X_OK);
    if (!error && python->script)
        error = check_file(python->script, R_OK);
    if (!error && python->script && stat(python->script, &status) == 0 && S_ISDIR(status.st_mode))
        error = -EISDIR;
    return error;
}

/* Copies a struct that begins with its size, and may be that of an older header, or of a newer one
 * as long as what is unknown here is 0. */
static bool take_sized(void *own, size_t own_size, const void *given, size_t given_size)
{
    const unsigned char *bytes = given;

    for (size_t i = own_size; i < given_size; i++)
        if (bytes[i])
            return false;
    memcpy(own, given, given_size < own_size ? given_size : own_size);
    memcpy(own, &own_size, sizeof own_size);
    return given_size >= sizeof own_size;
}

static int take_config(struct pool_python_config *own, const struct pool_python_config *given)
{
    pool_python_config_init(own);
    if (given && !take_sized(own, sizeof *own, given, given->size))
        return -EINVAL;
    return check_config(own);
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
    pool_config_init(&with_host);
    if ((config && !take_sized(&with_host, sizeof with_host, config, config->size)) ||
        with_host.host || with_host.command)
        return -EINVAL;
    int error = take_config(&interpreter.config, python);
    if (error)
        return error;
    interpreter.log = with_host.log;
    interpreter.log_context = with_host.log_context;
    host.context = &interpreter;
    with_host.host = &host;
    return pool_create(out, &with_host);
}

int pool_python_serve(struct pool *pool, const struct pool_python_config *python)
{
    struct interpreter interpreter = {0};
    struct pool_host host = host_hooks;

    int error = take_config(&interpreter.config, python);
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
