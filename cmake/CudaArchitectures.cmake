# dovit_cuda_architectures(RESULT NVCC): those that the library is compiled for, of which the nvcc at hand knows. The newest
# gets PTX besides, so that the library runs on what comes after it.
function(dovit_cuda_architectures result nvcc)
  execute_process(COMMAND "${nvcc}" --list-gpu-arch OUTPUT_VARIABLE known ERROR_QUIET)
  set(architectures "")
  foreach(architecture 75 80 86 89 90 100 120)
    if(known MATCHES "compute_${architecture}[^0-9]")
      list(APPEND architectures ${architecture}-real)
    endif()
  endforeach()
  list(POP_BACK architectures newest)
  string(REPLACE "-real" "" newest "${newest}")
  set(${result} ${architectures} ${newest} PARENT_SCOPE)
endfunction()
