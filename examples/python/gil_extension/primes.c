/* An extension module that lets go of the GIL while it counts, and, in the same library, the plain
 * C function that does it.
 *
 *     primes.count(begin, end)    for threads: they count at the same time
 *     count_primes(begin, end)    for the workers of a pool: libpool.native() finds it by its name
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>

static int is_prime(int64_t number)
{
    if (number < 4)
        return number > 1;
    if (number % 2 == 0)
        return 0;
    for (int64_t divisor = 3; divisor <= number / divisor; divisor += 2)
        if (number % divisor == 0)
            return 0;
    return 1;
}

/* How many primes there are from begin on, below end. It knows nothing of Python. */
__attribute__((visibility("default"))) int64_t count_primes(int64_t begin, int64_t end)
{
    int64_t count = 0;
    for (int64_t number = begin; number < end; number++)
        count += is_prime(number);
    return count;
}

static PyObject *count(PyObject *module, PyObject *args)
{
    long long begin, end;
    int64_t found;
    (void)module;
    if (!PyArg_ParseTuple(args, "LL:count", &begin, &end))
        return NULL;
    /* From here to the end of the block no Python object may be touched, and other threads run. */
    Py_BEGIN_ALLOW_THREADS
    found = count_primes(begin, end);
    Py_END_ALLOW_THREADS
    return PyLong_FromLongLong(found);
}

PyDoc_STRVAR(count_doc, "count($module, begin, end, /)\n--\n\n"
                        "Count the primes from begin on, below end, without the GIL.");

static PyMethodDef methods[] = {
    {"count", count, METH_VARARGS, count_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, .m_name = "primes", .m_doc = "Primes, counted without the GIL.",
    .m_methods = methods,  .m_slots = slots,
};

PyMODINIT_FUNC PyInit_primes(void)
{
    return PyModuleDef_Init(&definition);
}
