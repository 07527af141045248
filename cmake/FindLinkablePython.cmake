# Looks for a CPython with a shared libpython and its headers. Sets LinkablePython_FOUND and, if it
# is not, LinkablePython_REASON; the rest are the variables of FindPython3.
find_package(Python3 3.11 QUIET COMPONENTS Interpreter Development.Embed)
set(LinkablePython_FOUND OFF)
if(NOT Python3_Development.Embed_FOUND)
    set(LinkablePython_REASON "no CPython 3.11 or later with its headers and libpython \
(Debian, Ubuntu: python3-dev)")
elseif(Python3_LIBRARIES MATCHES "\\.a$")
    set(LinkablePython_REASON "${Python3_LIBRARIES} is static, and can't be part of a shared \
library (pyenv: PYTHON_CONFIGURE_OPTS=--enable-shared)")
else()
    set(LinkablePython_FOUND ON)
endif()
