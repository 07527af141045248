/* Code that the program brings as text. */
#include "interpreter.h"

#include <string.h>

#define SOURCES_MAX 256

int source_init(struct interpreter *interpreter)
{
    interpreter->sources = PyDict_New();
    interpreter->expressions = PyDict_New();
    return interpreter->sources && interpreter->expressions ? 0 : -1;
}

/* linecache.cache, where tracebacks look for the lines of a file; new. */
static PyObject *line_cache(void)
{
    PyObject *module = PyImport_ImportModule("linecache");
    PyObject *cache = module ? PyObject_GetAttrString(module, "cache") : NULL;

    Py_XDECREF(module);
    return cache;
}

/* Without a time of change, so that linecache does not look for the file. */
static int show_lines(const char *text, const char *name)
{
    PyObject *cache = line_cache(), *entry = NULL;
    PyObject *string = cache ? PyUnicode_FromString(text) : NULL;
    PyObject *lines = string ? PyUnicode_Splitlines(string, 1) : NULL;

    if (lines)
        entry = Py_BuildValue("(nOOs)", (Py_ssize_t)strlen(text), Py_None, lines, name);
    int error = entry ? PyMapping_SetItemString(cache, name, entry) : -1;
    Py_XDECREF(cache);
    Py_XDECREF(string);
    Py_XDECREF(lines);
    Py_XDECREF(entry);
    return error;
}

PyObject *source_compile(const char *text, const char *name, int start)
{
    return show_lines(text, name) < 0 ? NULL : Py_CompileString(text, name, start);
}

PyObject *source_attribute(PyObject *module, const char *name)
{
    PyObject *object = Py_NewRef(module);

    while (object) {
        size_t size = strcspn(name, ".");
        PyObject *part = PyUnicode_DecodeUTF8(name, (Py_ssize_t)size, NULL);
        PyObject *next = part ? PyObject_GetAttr(object, part) : NULL;
        Py_XDECREF(part);
        Py_DECREF(object);
        object = next;
        if (!name[size])
            break;
        name += size + 1;
    }
    return object;
}

/* ---- Texts that have been compiled ---------------------------------------------------------- */

/* Forgets the oldest text where there are too many. */
static int make_room(PyObject *texts)
{
    Py_ssize_t position = 0;
    PyObject *text, *made;

    if (PyDict_GET_SIZE(texts) < SOURCES_MAX || !PyDict_Next(texts, &position, &text, &made))
        return 0;
    Py_INCREF(text);
    Py_INCREF(made);
    int error = PyDict_DelItem(texts, text);
    PyObject *cache = error ? NULL : line_cache();
    PyObject *name = NULL;
    if (cache && PyModule_Check(made)) {
        name = PyModule_GetFilenameObject(made);
        const char *module = PyModule_GetName(made);
        if (!module || PyMapping_DelItemString(PyImport_GetModuleDict(), module) < 0)
            PyErr_Clear(); /* its own text has done so */
    } else if (cache) {
        name = PyObject_GetAttrString(made, "co_filename");
    }
    if (!name || PyObject_DelItem(cache, name) < 0)
        PyErr_Clear();
    Py_XDECREF(name);
    Py_XDECREF(cache);
    Py_DECREF(text);
    Py_DECREF(made);
    return error;
}

static PyObject *lookup(PyObject *texts, const char *text, PyObject **key)
{
    *key = PyUnicode_FromString(text);
    return *key ? PyDict_GetItemWithError(texts, *key) : NULL; /* borrowed */
}

/* ---- Modules -------------------------------------------------------------------------------- */

static int run_in_module(PyObject *module, PyObject *code, const char *file)
{
    PyObject *names = PyModule_GetDict(module);
    PyObject *name = PyUnicode_FromString(file);
    PyObject *result = NULL;

    if (name && PyDict_SetItemString(names, "__file__", name) == 0 &&
        PyDict_SetItemString(names, "__builtins__", PyEval_GetBuiltins()) == 0)
        result = PyEval_EvalCode(code, names, names);
    Py_XDECREF(name);
    Py_XDECREF(result);
    return result ? 0 : -1;
}

/* Registered as any module, since dataclasses, pickle and others look for it; if its text raises,
 * it is none. Borrowed. */
static PyObject *make_module(struct interpreter *interpreter, const char *text, PyObject *key)
{
    char name[40], file[48];
    unsigned long number = ++interpreter->source_count;

    snprintf(name, sizeof name, "libpool_source_%lu", number);
    snprintf(file, sizeof file, "<libpool source %lu>", number);
    PyObject *code = source_compile(text, file, Py_file_input);
    PyObject *module = code ? PyImport_AddModule(name) : NULL; /* borrowed, of sys.modules */
    int error = -1;
    if (module && make_room(interpreter->sources) == 0) {
        error = run_in_module(module, code, file);
        if (!error)
            error = PyDict_SetItem(interpreter->sources, key, module);
        if (error) {
            PyObject *exception = failure_take();
            if (PyMapping_DelItemString(PyImport_GetModuleDict(), name) < 0)
                PyErr_Clear();
            failure_put_back(exception);
        }
    }
    Py_XDECREF(code);
    return error ? NULL : module;
}

PyObject *source_module(struct interpreter *interpreter, const char *text)
{
    PyObject *key, *module = lookup(interpreter->sources, text, &key);

    if (!module && key && !PyErr_Occurred())
        module = make_module(interpreter, text, key);
    Py_XDECREF(key);
    return module;
}

/* ---- Expressions ---------------------------------------------------------------------------- */

/* Borrowed. */
static PyObject *expression_code(struct interpreter *interpreter, const char *text)
{
    PyObject *key, *code = lookup(interpreter->expressions, text, &key);
    char file[56];

    if (!code && key && !PyErr_Occurred()) {
        PyObject *made = NULL;
        snprintf(file, sizeof file, "<libpool expression %lu>", ++interpreter->source_count);
        if (make_room(interpreter->expressions) == 0)
            made = source_compile(text, file, Py_eval_input);
        if (made && PyDict_SetItem(interpreter->expressions, key, made) == 0)
            code = made; /* the dict has it */
        Py_XDECREF(made);
    }
    Py_XDECREF(key);
    return code;
}

/* One namespace, since comprehensions and lambdas see no other local names; a new one, so that
 * nothing of it is left for the next job. */
PyObject *source_evaluate(struct interpreter *interpreter, const char *text, PyObject *positional,
                          PyObject *keywords)
{
    PyObject *code = Py_XNewRef(expression_code(interpreter, text));
    PyObject *module = code ? PyImport_AddModule("__main__") : NULL; /* borrowed */
    PyObject *names = module ? PyDict_Copy(PyModule_GetDict(module)) : NULL;
    PyObject *value = NULL;

    if (names && PyDict_SetItemString(names, "args", positional) == 0 &&
        (!keywords || PyDict_Update(names, keywords) == 0))
        value = PyEval_EvalCode(code, names, names);
    Py_XDECREF(names);
    Py_XDECREF(code);
    return value;
}
