# Looks for a CPython with a shared libpython and its headers. Sets LinkablePython_FOUND and, if it
# is not, LinkablePython_REASON; the rest are the variables of FindPython3.
include(CheckCSourceCompiles)
find_package(Python3 3.11 QUIET COMPONENTS Interpreter Development.Embed)
set(LinkablePython_FOUND OFF)
if(NOT Python3_Development.Embed_FOUND)
    set(LinkablePython_REASON "no CPython 3.11 or later with its headers and libpython \
(Debian, Ubuntu: python3-dev)")
elseif(Python3_LIBRARIES MATCHES "\\.a$")
    set(LinkablePython_REASON "${Python3_LIBRARIES} is static, and can't be part of a shared \
library (pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared)")
else()
    # It may be one for another C library, or another machine (-m32).
    set(CMAKE_REQUIRED_INCLUDES ${Python3_INCLUDE_DIRS})
    set(CMAKE_REQUIRED_LIBRARIES ${Python3_LIBRARIES})
    set(CMAKE_REQUIRED_QUIET ON)
    check_c_source_compiles("#include <Python.h>
        int main(void) { return Py_IsInitialized(); }" LIBPOOL_LINKS_PYTHON)
    unset(CMAKE_REQUIRED_INCLUDES)
    unset(CMAKE_REQUIRED_LIBRARIES)
    unset(CMAKE_REQUIRED_QUIET)
    if(LIBPOOL_LINKS_PYTHON)
        set(LinkablePython_FOUND ON)
    else()
        set(LinkablePython_REASON "a program can't be linked with ${Python3_LIBRARIES}")
    endif()
endif()
