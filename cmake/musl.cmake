# For musl's compiler wrapper (Debian, Ubuntu: musl-tools): cmake --preset musl
#
# musl-gcc looks for headers in musl's own directory only, and the kernel's are not there
# (<linux/futex.h>). They do not depend on the C library; but /usr/include, where they are, has
# glibc's as well. Hence a directory with links to the kernel's alone, looked into last of all.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_C_COMPILER musl-gcc)
set(LIBPOOL_MUSL ON) # tests/c/CMakeLists.txt

set(musl_headers ${CMAKE_BINARY_DIR}/kernel-headers)
execute_process(COMMAND ${CMAKE_C_COMPILER} -print-multiarch
    OUTPUT_VARIABLE musl_multiarch OUTPUT_STRIP_TRAILING_WHITESPACE)
file(MAKE_DIRECTORY ${musl_headers})
foreach(directory linux asm-generic mtd)
    file(CREATE_LINK /usr/include/${directory} ${musl_headers}/${directory} SYMBOLIC)
endforeach()
foreach(directory /usr/include/${musl_multiarch}/asm /usr/include/asm)
    if(EXISTS ${directory})
        file(CREATE_LINK ${directory} ${musl_headers}/asm SYMBOLIC)
        break()
    endif()
endforeach()
set(CMAKE_C_FLAGS_INIT "-idirafter ${musl_headers}")

# Libraries of the system are made for glibc.
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY NEVER)
set(CMAKE_IGNORE_PATH /usr/include /usr/lib /usr/lib/${musl_multiarch} /lib)
