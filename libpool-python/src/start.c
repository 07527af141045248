/* Starting a worker's interpreter. What goes wrong is told the log, or the standard error stream:
 * there is no job yet that could tell it. */
#include "interpreter.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As Python does itself, if it installs signal handlers; which it is not to do here, since Ctrl-C
 * is the program's. So a broken pipe is an exception, and not the worker's death. */
static void ignore_default(int number)
{
    struct sigaction action;

    if (sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_DFL)
        signal(number, SIG_IGN);
}

/* One line. */
static void tell(const struct interpreter *interpreter, const char *line, size_t size)
{
    char message[400];

    snprintf(message, sizeof message, "worker %u: %.*s", interpreter->worker, (int)size, line);
    if (interpreter->log)
        interpreter->log(interpreter->log_context, POOL_LOG_ERROR, message);
    else
        fprintf(stderr, "libpool: %s\n", message);
}

static void tell_lines(const struct interpreter *interpreter, const char *text)
{
    while (*text) {
        size_t size = strcspn(text, "\n");
        tell(interpreter, text, size < 4096 ? size : 4096);
        text += size + (text[size] == '\n');
    }
}

/* Not PyErr_Print(), which ends the process for a SystemExit, nor PyErr_Display(), which up to 3.12
 * does not show the lines of the program's texts. */
static void tell_exception(const struct interpreter *interpreter)
{
    PyObject *text = failure_text();

    tell_lines(interpreter, "the start code failed");
    tell_lines(interpreter, text ? PyBytes_AS_STRING(text) : "no memory for its traceback");
    Py_XDECREF(text);
}

/* ---- The interpreter ------------------------------------------------------------------------ */

static PyStatus set_program(PyConfig *config, const struct pool_python_config *python)
{
    static const char version[] =
        "python" Py_STRINGIFY(PY_MAJOR_VERSION) "." Py_STRINGIFY(PY_MINOR_VERSION);
    char path[4096];

    if (!python->venv && !python->executable)
        return PyConfig_SetBytesString(config, &config->program_name, version);
    if (python->venv)
        snprintf(path, sizeof path, "%s/bin/python", python->venv);
    PyStatus status = PyConfig_SetBytesString(config, &config->program_name,
                                              python->venv ? path : python->executable);
    if (!PyStatus_Exception(status))
        status = PyConfig_SetBytesString(config, &config->executable,
                                         python->venv ? path : python->executable);
    return status;
}

static PyStatus initialize(const struct pool_python_config *python)
{
    PyPreConfig before;
    PyConfig config;

    PyPreConfig_InitPythonConfig(&before);
    before.parse_argv = 0;
    before.isolated = python->isolated;
    if (python->isolated)
        before.use_environment = 0;
    PyStatus status = Py_PreInitialize(&before);
    if (PyStatus_Exception(status))
        return status;
    PyConfig_InitPythonConfig(&config);
    config.parse_argv = 0;
    config.install_signal_handlers = 0;
    config.configure_c_stdio = 0; /* the program's, which may have something in their buffers */
    config.safe_path = 1;
    config.isolated = python->isolated;
    if (python->isolated)
        config.use_environment = config.user_site_directory = 0;
    status = set_program(&config, python);
    if (!PyStatus_Exception(status))
        status = Py_InitializeFromConfig(&config);
    PyConfig_Clear(&config);
    return status;
}

static int add_paths(const char *const *paths)
{
    PyObject *list = PySys_GetObject("path"); /* borrowed */

    if (!list || !PyList_Check(list)) {
        PyErr_SetString(PyExc_RuntimeError, "sys.path is no list");
        return -1;
    }
    for (Py_ssize_t i = 0; paths && paths[i]; i++) {
        PyObject *path = PyUnicode_DecodeFSDefault(paths[i]);
        int error = path ? PyList_Insert(list, i, path) : -1;
        Py_XDECREF(path);
        if (error)
            return -1;
    }
    return 0;
}

/* ---- Code of the program -------------------------------------------------------------------- */

/* The text of a file, as C string to be freed; NULL with an exception. */
static char *read_file(const char *path)
{
    FILE *file = fopen(path, "re");
    char *text = NULL;
    size_t used = 0, room = 0, count;

    if (!file) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, path);
        return NULL;
    }
    do {
        if (room - used < 4096) {
            char *larger = realloc(text, room = room * 2 + 8192);
            if (!larger) {
                free(text);
                fclose(file);
                PyErr_NoMemory();
                return NULL;
            }
            text = larger;
        }
        count = fread(text + used, 1, room - used - 1, file);
        used += count;
    } while (count > 0);
    text[used] = '\0';
    if (ferror(file) || strlen(text) != used) {
        PyErr_Format(PyExc_OSError, "%s can't be read, or contains a null character", path);
        free(text);
        text = NULL;
    }
    fclose(file);
    return text;
}

static int run_in_main(PyObject *code)
{
    PyObject *module = code ? PyImport_AddModule("__main__") : NULL; /* borrowed */
    PyObject *names = module ? PyModule_GetDict(module) : NULL;
    PyObject *result = names ? PyEval_EvalCode(code, names, names) : NULL;

    Py_XDECREF(code);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

static int run_script(const char *path)
{
    PyObject *module = PyImport_AddModule("__main__");
    PyObject *name = module ? PyUnicode_DecodeFSDefault(path) : NULL;
    int error = name ? PyObject_SetAttrString(module, "__file__", name) : -1;
    char *text = error ? NULL : read_file(path);

    Py_XDECREF(name);
    if (!text)
        return -1;
    PyObject *code = Py_CompileString(text, path, Py_file_input);
    free(text);
    return run_in_main(code);
}

static int run_start_code(const struct pool_python_config *python)
{
    if (python->script && run_script(python->script) < 0)
        return -1;
    if (python->source)
        return run_in_main(source_compile(python->source, "<libpool start>", Py_file_input));
    return 0;
}

int interpreter_start(struct interpreter *interpreter)
{
    ignore_default(SIGPIPE);
#ifdef SIGXFSZ
    ignore_default(SIGXFSZ);
#endif
    PyStatus status = initialize(&interpreter->config);
    if (PyStatus_Exception(status)) {
        char message[300];
        snprintf(message, sizeof message, "Python can't start: %s",
                 status.err_msg ? status.err_msg : "it asked to exit");
        tell_lines(interpreter, message);
        return POOL_EXIT_HOPELESS;
    }
    if (add_paths(interpreter->config.paths) < 0 || memory_init(interpreter) < 0 ||
        source_init(interpreter) < 0 || run_start_code(&interpreter->config) < 0) {
        tell_exception(interpreter);
        call_flush();
        return POOL_EXIT_HOPELESS;
    }
    call_flush();
    return 0;
}
