/* The module libpool._core and its state. */
#include "core.h"

Core *core_of(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &core_module);
    return module ? PyModule_GetState(module) : NULL;
}

static PyObject *import_from(const char *module, const char *name)
{
    PyObject *imported = PyImport_ImportModule(module);
    PyObject *attribute = imported ? PyObject_GetAttrString(imported, name) : NULL;
    Py_XDECREF(imported);
    return attribute;
}

PyObject *core_late(PyObject **slot, const char *module, const char *name)
{
    if (!*slot) {
        PyObject *found = import_from(module, name);
        Py_XSETREF(*slot, found);
    }
    return *slot;
}

static int import_all(Core *core)
{
    const struct {
        PyObject **slot;
        const char *module;
        const char *name;
    } wanted[] = {
        {&core->cancelled_error, "concurrent.futures", "CancelledError"},
        {&core->logger, "concurrent.futures._base", "LOGGER"},
        {&core->state_pending, "concurrent.futures._base", "PENDING"},
        {&core->state_running, "concurrent.futures._base", "RUNNING"},
        {&core->state_cancelled, "concurrent.futures._base", "CANCELLED"},
        {&core->state_cancelled_and_notified, "concurrent.futures._base", "CANCELLED_AND_NOTIFIED"},
        {&core->state_finished, "concurrent.futures._base", "FINISHED"},
        {&core->condition, "threading", "Condition"},
        {&core->thread, "threading", "Thread"},
        {&core->main_thread, "threading", "main_thread"},
        {&core->current_thread, "threading", "current_thread"},
        {&core->dumps, "pickle", "dumps"},
        {&core->loads, "pickle", "loads"},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (!(*wanted[i].slot = import_from(wanted[i].module, wanted[i].name)))
            return -1;
    return 0;
}

static int make_names(Core *core)
{
    const struct {
        PyObject **slot;
        const char *text;
    } wanted[] = {
        {&core->name_torch, "torch"},
        {&core->name_timeout, "timeout"},
        {&core->name_acquire, "acquire"},
        {&core->name_release, "release"},
        {&core->name_notify_all, "notify_all"},
        {&core->name_describe, "describe"},
        {&core->name_done, "done"},
        {&core->name_set_result, "set_result"},
        {&core->name_set_exception, "set_exception"},
        {&core->name_cancel, "cancel"},
        {&core->name_retire, "retire"},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
        if (!(*wanted[i].slot = PyUnicode_InternFromString(wanted[i].text)))
            return -1;
    core->pickle_protocol = PyLong_FromLong(5);
    core->keyword_buffer_callback = Py_BuildValue("(s)", "buffer_callback");
    core->keyword_buffers = Py_BuildValue("(s)", "buffers");
    core->nothing = PyTuple_New(0);
    return core->pickle_protocol && core->keyword_buffer_callback && core->keyword_buffers &&
                   core->nothing
               ? 0
               : -1;
}

static PyTypeObject *make_type(PyObject *module, PyType_Spec *spec)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
}

static int make_types(PyObject *module, Core *core)
{
    PyObject *base = import_from("concurrent.futures", "Future");
    if (!base)
        return -1;
    core->base_result = PyObject_GetAttrString(base, "result");
    core->base_exception = PyObject_GetAttrString(base, "exception");
    core->future_type = future_make_type(module, base);
    Py_DECREF(base);
    core->handle_type = make_type(module, &handle_spec);
    core->watch_type = make_type(module, &watch_spec);
    core->sent_function_type = make_type(module, &sent_function_spec);
    core->block_type = make_type(module, &block_spec);
    core->collector_type = make_type(module, &collector_spec);
    core->awaited_type = make_type(module, &awaited_spec);
    core->loop_type = make_type(module, &loop_spec);
    core->workers_type = make_type(module, &workers_spec);
    core->native_type = make_type(module, &native_spec);
    if (!core->base_result || !core->base_exception || !core->future_type || !core->handle_type ||
        !core->watch_type || !core->sent_function_type || !core->block_type ||
        !core->collector_type || !core->awaited_type || !core->loop_type || !core->workers_type ||
        !core->native_type)
        return -1;
    if (PyModule_AddType(module, core->future_type) < 0 ||
        PyModule_AddType(module, core->loop_type) < 0 ||
        PyModule_AddType(module, core->native_type) < 0)
        return -1;
    return PyModule_AddType(module, core->workers_type);
}

static int core_exec(PyObject *module)
{
    Core *core = PyModule_GetState(module);
    if (reaper_init() < 0 || import_all(core) < 0 || make_names(core) < 0 ||
        make_types(module, core) < 0)
        return -1;
    if (PyModule_AddIntConstant(module, "EXIT_HOPELESS", POOL_EXIT_HOPELESS) < 0)
        return -1;
    return PyModule_AddStringConstant(module, "version", pool_version());
}

static int core_traverse(PyObject *module, visitproc visit, void *arg)
{
    Core *core = PyModule_GetState(module);
    Py_VISIT(core->workers_type);
    Py_VISIT(core->handle_type);
    Py_VISIT(core->future_type);
    Py_VISIT(core->watch_type);
    Py_VISIT(core->sent_function_type);
    Py_VISIT(core->block_type);
    Py_VISIT(core->collector_type);
    Py_VISIT(core->awaited_type);
    Py_VISIT(core->loop_type);
    Py_VISIT(core->base_result);
    Py_VISIT(core->base_exception);
    Py_VISIT(core->cancelled_error);
    Py_VISIT(core->logger);
    Py_VISIT(core->condition);
    Py_VISIT(core->thread);
    Py_VISIT(core->main_thread);
    Py_VISIT(core->current_thread);
    Py_VISIT(core->dumps);
    Py_VISIT(core->loads);
    Py_VISIT(core->rich_dumps);
    Py_VISIT(core->tensor_dumps);
    Py_VISIT(core->all_have);
    Py_VISIT(core->dumps_exception);
    Py_VISIT(core->loads_exception);
    Py_VISIT(core->broken_pool);
    Py_VISIT(core->worker_died);
    Py_VISIT(core->native_type);
    Py_VISIT(core->native_out);
    Py_VISIT(core->native_in_out);
    Py_VISIT(core->simple_data);
    Py_VISIT(core->array_type);
    Py_VISIT(core->with_failures);
    Py_VISIT(core->current);
    return 0;
}

static int core_clear(PyObject *module)
{
    Core *core = PyModule_GetState(module);
    Py_CLEAR(core->workers_type);
    Py_CLEAR(core->handle_type);
    Py_CLEAR(core->future_type);
    Py_CLEAR(core->watch_type);
    Py_CLEAR(core->sent_function_type);
    Py_CLEAR(core->block_type);
    Py_CLEAR(core->collector_type);
    Py_CLEAR(core->awaited_type);
    Py_CLEAR(core->loop_type);
    Py_CLEAR(core->base_result);
    Py_CLEAR(core->base_exception);
    Py_CLEAR(core->cancelled_error);
    Py_CLEAR(core->logger);
    Py_CLEAR(core->state_pending);
    Py_CLEAR(core->state_running);
    Py_CLEAR(core->state_cancelled);
    Py_CLEAR(core->state_cancelled_and_notified);
    Py_CLEAR(core->state_finished);
    Py_CLEAR(core->condition);
    Py_CLEAR(core->thread);
    Py_CLEAR(core->main_thread);
    Py_CLEAR(core->current_thread);
    Py_CLEAR(core->dumps);
    Py_CLEAR(core->loads);
    Py_CLEAR(core->rich_dumps);
    Py_CLEAR(core->tensor_dumps);
    Py_CLEAR(core->all_have);
    Py_CLEAR(core->dumps_exception);
    Py_CLEAR(core->loads_exception);
    Py_CLEAR(core->broken_pool);
    Py_CLEAR(core->worker_died);
    Py_CLEAR(core->native_type);
    Py_CLEAR(core->native_out);
    Py_CLEAR(core->native_in_out);
    Py_CLEAR(core->simple_data);
    Py_CLEAR(core->array_type);
    Py_CLEAR(core->with_failures);
    Py_CLEAR(core->name_torch);
    Py_CLEAR(core->name_timeout);
    Py_CLEAR(core->name_acquire);
    Py_CLEAR(core->name_release);
    Py_CLEAR(core->name_notify_all);
    Py_CLEAR(core->name_describe);
    Py_CLEAR(core->name_done);
    Py_CLEAR(core->name_set_result);
    Py_CLEAR(core->name_set_exception);
    Py_CLEAR(core->name_cancel);
    Py_CLEAR(core->name_retire);
    Py_CLEAR(core->pickle_protocol);
    Py_CLEAR(core->keyword_buffer_callback);
    Py_CLEAR(core->keyword_buffers);
    Py_CLEAR(core->nothing);
    Py_CLEAR(core->current);
    return 0;
}

static void core_free(void *module)
{
    core_clear(module);
}

PyDoc_STRVAR(current_doc, "current($module, /)\n--\n\n"
"In a job, return the libpool.Pool or libpool.Executor that runs it; elsewhere None.\n");

static PyObject *core_current(PyObject *module, PyObject *Py_UNUSED(unused))
{
    Core *core = PyModule_GetState(module);
    bool here = core->current && !handle_inherited(core->current->handle);
    return Py_NewRef(here ? (PyObject *)core->current : Py_None);
}

PyDoc_STRVAR(worker_index_doc, "worker_index($module, /)\n--\n\n"
"Return the number of this worker, 0 and up, or -1 in a process that is none.\n");

static PyObject *core_worker_index(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    return PyLong_FromLong(pool_worker_index());
}

PyDoc_STRVAR(cpu_count_doc, "cpu_count($module, /)\n--\n\n"
"Return how many cores this process may use: its affinity, capped by its cgroup's quota.\n");

static PyObject *core_cpu_count(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(unused))
{
    return PyLong_FromLong(pool_cpu_count());
}

PyDoc_STRVAR(finish_doc, "finish($module, /)\n--\n\n"
"The interpreter ends: end all pools that nobody has any more.\n\n"
"Those made with finishes_at_exit end when their calls have ended, the others at once. Also waits\n"
"until the futures' callbacks have run. Pools that are dropped afterwards are terminated.\n");

static PyObject *core_finish(PyObject *module, PyObject *Py_UNUSED(unused))
{
    Core *core = PyModule_GetState(module);
    if (reaper_finish(core) < 0 || collector_finish(core) < 0)
        return NULL;
    core->ended = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(note_output_doc, "note_output($module, /)\n--\n\n"
"In a worker: have the standard streams flushed when the running job ends.\n");

static PyObject *core_note_output(PyObject *module, PyObject *Py_UNUSED(unused))
{
    ((Core *)PyModule_GetState(module))->printed = true;
    Py_RETURN_NONE;
}

PyDoc_STRVAR(globals_in_doc, "globals_in($module, pickled, /)\n--\n\n"
"The (module, name) pairs by which a pickle names functions and classes.\n\n"
"Parameters\n----------\n"
"pickled : bytes\n"
"    Made by the pickler of the standard library, with protocol 5.\n\n"
"Returns\n-------\n"
"set of tuple of str, or None\n"
"    None: it can't be said.\n");

static PyObject *core_globals_in(PyObject *Py_UNUSED(module), PyObject *pickled)
{
    if (PyBytes_CheckExact(pickled))
        return globals_in(pickled);
    return PyErr_Format(PyExc_TypeError, "a pickle is bytes, not %.100s",
                        Py_TYPE(pickled)->tp_name);
}

static PyMethodDef core_methods[] = {
    {"current", core_current, METH_NOARGS, current_doc},
    {"worker_index", core_worker_index, METH_NOARGS, worker_index_doc},
    {"finish", core_finish, METH_NOARGS, finish_doc},
    {"cpu_count", core_cpu_count, METH_NOARGS, cpu_count_doc},
    {"gather", (PyCFunction)(void (*)(void))bulk_gather, METH_FASTCALL, bulk_gather_doc},
    {"_get", block_get, METH_O, block_get_doc},
    {"note_output", core_note_output, METH_NOARGS, note_output_doc},
    {"globals_in", core_globals_in, METH_O, globals_in_doc},
    {NULL},
};

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, SLOT(core_exec)},
    {0, NULL},
};

PyDoc_STRVAR(core_doc, "The C part of libpool: worker processes, and futures of what they run.");

PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,       .m_name = "libpool._core", .m_doc = core_doc,
    .m_size = sizeof(Core),      .m_methods = core_methods, .m_slots = core_slots,
    .m_traverse = core_traverse, .m_clear = core_clear,     .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void); /* declared, as Python asks for it by name only */

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
