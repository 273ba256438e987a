# `cmake --install`: the library, its headers, the program, and what find_package(fastntk) needs.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

install(TARGETS fastntk EXPORT fastntk-targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT fastntk-targets NAMESPACE fastntk:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/fastntk)
foreach(room engine models datasets training unlearn)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${room} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/fastntk FILES_MATCHING PATTERN "*.h")
endforeach()
if(TARGET fastntk_app)
  install(TARGETS fastntk_app RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/fastntk-config.cmake.in ${PROJECT_BINARY_DIR}/fastntk-config.cmake
                              INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/fastntk)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/fastntk-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/fastntk-config.cmake ${PROJECT_BINARY_DIR}/fastntk-config-version.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/fastntk)
