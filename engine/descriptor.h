// System calls on open files, repeated where they are interrupted or move less than was asked for. What InputFile,
// AtomicFile and the files that are appended to have in common.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace fastntk {

/// Writes all bytes from `offset` on; an Error names `path`.
void write_at(int descriptor, const std::string& path, int64_t offset, std::span<const std::byte> bytes);
/// Fills `bytes` from `offset` on and returns how many there were, fewer only at the end of the file.
size_t read_at(int descriptor, const std::string& path, int64_t offset, std::span<std::byte> bytes);
/// Locks the file for one writer, without waiting. An Error says that another process is writing `path`, or what else
/// is wrong.
void lock_for_writing(int descriptor, const std::string& path);
/// Whether `name` is that of the open file. A writer that finishes renames or removes the file that the next one may
/// just have opened, so whoever has locked a file asks.
bool leads_to(const std::string& name, int descriptor);
/// Opens the file of this name, made if there is none, and locks it for one writer; `flags` for open(). An Error names
/// `path`, or says that another process is writing it.
int open_locked(const std::string& name, const std::string& path, int flags);
/// Waits until the file is on the disk. Zero, or the errno of the failure.
int try_sync(int descriptor);
/// Waits until the names in the folder of `path` are on the disk. File systems that cannot flush a folder are let be.
void sync_folder_of(const std::string& path);

}  // namespace fastntk
