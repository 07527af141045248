# Run by cpack when the files of the packages are laid out, before it packs them: what Debian's
# policy asks of every package and others have no use for.
if(NOT CPACK_GENERATOR STREQUAL "DEB")
    return()
endif()

file(GLOB components ${CPACK_TEMPORARY_DIRECTORY}/*)
foreach(component ${components})
    cmake_path(GET component FILENAME name)
    string(TOUPPER ${name} name)
    set(doc ${component}/usr/share/doc/${CPACK_DEBIAN_${name}_PACKAGE_NAME})
    configure_file(${CPACK_LIBPOOL_SOURCE}/LICENSE ${doc}/copyright COPYONLY)
    file(GLOB pages ${component}/usr/share/man/man?/*)
    if(pages)
        execute_process(COMMAND gzip -9n ${pages} COMMAND_ERROR_IS_FATAL ANY)
    endif()
endforeach()
