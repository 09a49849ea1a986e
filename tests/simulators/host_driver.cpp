// host_driver.cpp: launches kernels of a host library in a process of its own, for sanitizers that must be there from the start.
//
// One request per line on stdin, one answer a line on stdout (tests/simulators/ways.py: Driver):
//   library kernel grid block workers seed memory sizes... ; arguments...
//   memory     a file that holds the storages one after another, each at a multiple of 64; written back after the launch
//   sizes      bytes of each storage; each is copied to a malloc of its own, so that AddressSanitizer sees its ends
//   arguments  p<storage>+<offset> or v<16 hex digits, the value's bits>
//   answer     the number of ThreadSanitizer reports, then what the launch returned ("ok" if nothing)
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

static int reports;
extern "C" __attribute__((visibility("default"), no_sanitize("thread"))) void __tsan_on_report(void*) { ++reports; }

int main() {
    for (std::string line; std::getline(std::cin, line);) {
        std::istringstream in(line);
        std::string library, kernel, memory, word;
        unsigned grid, block, workers;
        uint64_t seed;
        in >> library >> kernel >> grid >> block >> workers >> seed >> memory;
        std::vector<size_t> sizes, places;
        size_t total = 0;
        while (in >> word && word != ";") {
            places.push_back(total);
            sizes.push_back(std::stoull(word));
            total += (sizes.back() + 63) / 64 * 64;
        }
        char* file = nullptr;
        if (total) {
            const int handle = open(memory.c_str(), O_RDWR);
            file = static_cast<char*>(mmap(nullptr, total, PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0));
            close(handle);
            if (file == MAP_FAILED) { std::cout << "0 cannot map " << memory << std::endl; continue; }
        }
        std::vector<char*> storages;
        for (size_t i = 0; i < sizes.size(); ++i) {
            storages.push_back(new char[sizes[i]]);
            memcpy(storages[i], file + places[i], sizes[i]);
        }
        std::vector<uint64_t> values;
        while (in >> word) {
            const size_t plus = word.find('+');
            values.push_back(word[0] == 'p' ? reinterpret_cast<uint64_t>(storages[std::stoull(word.substr(1))]) + std::stoull(word.substr(plus + 1))
                                            : std::stoull(word.substr(1), nullptr, 16));
        }
        std::vector<void*> arguments;
        for (uint64_t& v : values) arguments.push_back(&v);
        void* handle = dlopen(library.c_str(), RTLD_NOW);
        auto launch = handle ? reinterpret_cast<const char* (*)(unsigned, unsigned, void**, unsigned, uint64_t)>(
                                   dlsym(handle, ("jg_launch_" + kernel).c_str())) : nullptr;
        reports = 0;
        const char* wrong = launch ? launch(grid, block, arguments.data(), workers, seed) : dlerror();
        for (size_t i = 0; i < sizes.size(); ++i) {
            memcpy(file + places[i], storages[i], sizes[i]);
            delete[] storages[i];
        }
        if (file) munmap(file, total);
        std::cout << reports << " " << (wrong ? wrong : "ok") << std::endl;
    }
}
