# What cpack makes: for Debian a package of the library that programs load and one of what is needed
# to build them; for all others an archive of both. Names of Debian packages follow the SONAME, so
# that two versions of the library can be installed at once.
get_target_property(soversion libpool SOVERSION)
set(CPACK_PACKAGE_NAME libpool)
set(CPACK_PACKAGE_VENDOR "The libpool authors")
set(LIBPOOL_MAINTAINER "The libpool authors" CACHE STRING
    "Who answers for the packages that cpack makes: Name <address>")
set(CPACK_PACKAGE_CONTACT "${LIBPOOL_MAINTAINER}")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${PROJECT_DESCRIPTION}")
set(CPACK_RESOURCE_FILE_LICENSE ${PROJECT_SOURCE_DIR}/LICENSE)
set(CPACK_RESOURCE_FILE_README ${PROJECT_SOURCE_DIR}/README.md)
set(CPACK_GENERATOR TGZ)
find_program(DPKG_DEB dpkg-deb)
mark_as_advanced(DPKG_DEB)
if(DPKG_DEB)
    list(APPEND CPACK_GENERATOR DEB)
endif()
set(CPACK_SYSTEM_NAME "${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR}")
set(CPACK_PACKAGE_CHECKSUM SHA256)
set(CPACK_STRIP_FILES ON)
set(CPACK_VERBATIM_VARIABLES ON)

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_PRIORITY optional)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON) # and the trigger that has ldconfig run
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")
if(CMAKE_LIBRARY_ARCHITECTURE AND CMAKE_INSTALL_LIBDIR MATCHES "${CMAKE_LIBRARY_ARCHITECTURE}")
    set(CPACK_DEBIAN_PACKAGE_MULTIARCH same)
endif()
# What it needs at run time is asked from dpkg-shlibdeps, where there is one.
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS_PRIVATE_DIRS ${PROJECT_BINARY_DIR}/libpool)
find_program(DPKG_SHLIBDEPS dpkg-shlibdeps)
mark_as_advanced(DPKG_SHLIBDEPS)

# debian_pair LIBRARY RUNTIME DEVELOPMENT [BASE]: packages LIBRARY<soversion> and LIBRARY-dev from
# these components, which need those of the library BASE.
macro(debian_pair library runtime development)
    set(base)
    set(base_development)
    if(NOT "${ARGN}" STREQUAL "")
        set(base "${ARGN}${soversion} (= ${PROJECT_VERSION})")
        set(base_development "${ARGN}-dev (= ${PROJECT_VERSION})")
    endif()
    list(APPEND CPACK_COMPONENTS_ALL ${runtime} ${development})
    string(TOUPPER ${runtime} upper)
    set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${library}${soversion})
    set(CPACK_DEBIAN_${upper}_PACKAGE_SECTION libs)
    set(CPACK_DEBIAN_${upper}_DESCRIPTION
        "This package has the shared library that programs load.")
    if(DPKG_SHLIBDEPS)
        set(CPACK_DEBIAN_${upper}_PACKAGE_SHLIBDEPS ON)
    else()
        list(APPEND base libc6)
    endif()
    list(JOIN base ", " CPACK_DEBIAN_${upper}_PACKAGE_DEPENDS)

    string(TOUPPER ${development} upper)
    set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${library}-dev)
    set(CPACK_DEBIAN_${upper}_PACKAGE_SECTION libdevel)
    set(CPACK_DEBIAN_${upper}_DESCRIPTION
        "This package has what is needed to build programs with ${library}:
headers, the library to link with, manual pages, and the files by which
pkg-config and CMake find them.")
    set(depends "${library}${soversion} (= ${PROJECT_VERSION})" libc6-dev ${base_development})
    list(JOIN depends ", " CPACK_DEBIAN_${upper}_PACKAGE_DEPENDS)
endmacro()

debian_pair(libpool runtime development)
if(TARGET libpool_python)
    debian_pair(libpool-python python-host-runtime python-host-development libpool)
endif()

set(CPACK_PRE_BUILD_SCRIPTS ${CMAKE_CURRENT_LIST_DIR}/debian-files.cmake)
set(CPACK_LIBPOOL_SOURCE ${PROJECT_SOURCE_DIR})
include(CPack)
