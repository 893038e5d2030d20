# The structs of dovit_kernels.h as a table: for each kernel its size, and every field's name, offset and size. So programs can name
# arguments, and a new kernel needs no line of C++ here.

# Writes `out` from `header`, in which a field is one line, `type name;`.
function(dovit_kernel_layouts header out)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${header}")
  file(READ "${header}" text)
  string(REGEX REPLACE "/\\*([^*]|\\*+[^*/])*\\*+/" "" text "${text}") # comments
  string(REGEX REPLACE "[][]" "" text "${text}") # which group the items of a CMake list
  string(REPLACE ";" "," text "${text}")
  string(REGEX MATCHALL "typedef struct dovit_[a-z0-9_]+_args {[^}]*}" structs "${text}")
  set(table "")
  foreach(struct IN LISTS structs)
    string(REGEX MATCH "struct dovit_([a-z0-9_]+)_args" _ "${struct}")
    set(kernel "${CMAKE_MATCH_1}")
    string(REGEX MATCHALL "[a-z0-9_]+," fields "${struct}")
    set(rows "")
    foreach(field IN LISTS fields)
      string(REPLACE "," "" field "${field}")
      set(args "dovit_${kernel}_args")
      if(NOT field STREQUAL "size")
        string(APPEND rows "      {\"${field}\", offsetof(${args}, ${field}), sizeof(${args}::${field})},\n")
      endif()
    endforeach()
    string(APPEND table "    {\"${kernel}\", sizeof(dovit_${kernel}_args), {\n${rows}    }},\n")
  endforeach()
  if(table STREQUAL "")
    message(FATAL_ERROR "dovit: ${header} has no kernels that can be read")
  endif()
  file(CONFIGURE OUTPUT "${out}" CONTENT "// Made from dovit_kernels.h by cmake/KernelLayouts.cmake.\n@table@" @ONLY)
endfunction()
