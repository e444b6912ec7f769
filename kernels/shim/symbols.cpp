#include "symbols.h"

#include <dlfcn.h>
#include <stdio.h>

#include <algorithm>
#include <vector>

extern "C" {
extern char __ehdr_start[] __attribute__((visibility("hidden")));
extern char _end[] __attribute__((visibility("hidden")));
}

namespace splat::shim {

namespace {

std::vector<std::string> lines_of(const std::string &command) {
  std::vector<std::string> lines;
  FILE *pipe = popen(command.c_str(), "r");
  if (!pipe) return lines;
  char text[4096];
  while (fgets(text, sizeof text, pipe)) lines.emplace_back(text, std::string(text).find_last_not_of('\n') + 1);
  pclose(pipe);
  return lines;
}

std::string file_of(const std::string &line) {
  const std::string name = line.substr(0, line.find(" (discriminator"));
  return name.substr(name.rfind('/') + 1);
}

bool is_kernels(const std::string &line) { return line.find("/shim/") == std::string::npos && line.find("/usr/") != 0 && line[0] != '?'; }

}  // namespace

uint32_t site_of(const void *address) { return static_cast<uint32_t>(static_cast<const char *>(address) - __ehdr_start); }

bool is_in_image(uintptr_t address) { return address >= reinterpret_cast<uintptr_t>(__ehdr_start) && address < reinterpret_cast<uintptr_t>(_end); }

std::map<uint32_t, Symbol> look_up(const std::set<uint32_t> &sites) {
  std::map<uint32_t, Symbol> found;
  Dl_info info;
  if (!dladdr(__ehdr_start, &info)) return found;
  std::string command = std::string("addr2line -e '") + info.dli_fname + "' -a -f -C -i";
  for (const uint32_t site : sites) {
    char text[32];
    snprintf(text, sizeof text, " 0x%x", site);
    command += text;
    found[site].line = std::string("code at") + text;
  }
  const std::vector<std::string> lines = lines_of(command + " 2>/dev/null");
  Symbol *symbol = nullptr;
  for (size_t i = 0; i < lines.size();) {
    if (lines[i].compare(0, 2, "0x") == 0) {
      symbol = &found[static_cast<uint32_t>(std::stoul(lines[i++], nullptr, 16))];
      continue;
    }
    if (i + 1 < lines.size() && symbol && !symbol->is_known && is_kernels(lines[i + 1])) *symbol = {short_name(lines[i]), file_of(lines[i + 1]), true};
    i += 2;
  }
  return found;
}

std::string short_name(const std::string &function) {
  std::string text = function;
  const std::string unnamed = "(anonymous namespace)::";
  for (size_t at; (at = text.find(unnamed)) != std::string::npos;) text.erase(at, unnamed.size());
  const size_t end = std::min(text.find_first_of("<("), text.size());
  std::string name = text.substr(0, end);
  if (const size_t colons = name.rfind("::"); colons != std::string::npos) name.erase(0, colons + 2);
  if (const size_t space = name.rfind(' '); space != std::string::npos) name.erase(0, space + 1);  // what a template returns
  if (end == text.size() || text[end] == '(') return name;
  const std::string values = text.substr(end, text.find('>', end) - end + 1);
  return values.find_first_of(":({") == std::string::npos ? name + values : name;
}

}  // namespace splat::shim
