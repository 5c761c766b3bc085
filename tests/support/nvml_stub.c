/* Stand in for NVIDIA's management library: what the machine has is what the file $NVML_STUB_FILE says.
 *
 * The file is read anew at every call, so a test can change it while a hive runs. One line each:
 *     mode ok | no-graphics | hang | hang-memory | crash | no-driver | mismatch | error | lost
 *     device TOTAL_MB USED_MB NAME WITH SPACES
 *     energy MILLIJOULES      of the device above it, which does not tell without
 *     process PID HELD_MB
 *     graphics PID HELD_MB
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MOST 16
#define MIB (1024ULL * 1024ULL)

enum {
    SUCCESS = 0,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    GPU_IS_LOST = 15,
    LIB_RM_VERSION_MISMATCH = 18,
    UNKNOWN = 999
};

typedef struct { unsigned long long total, free, used; } memory_t;
typedef struct { unsigned int version; unsigned long long total, reserved, free, used; } memory_v2_t;
typedef struct { char name[96]; unsigned long long total_mb, used_mb, energy_mj; int tells; } device_t;
typedef struct { unsigned int pid; unsigned long long bytes; unsigned int gpu_instance, compute_instance; } process_t;
typedef struct { int count; process_t processes[MOST]; } holders_t;
typedef struct {
    char mode[32];
    int count;
    device_t devices[MOST];
    holders_t computing, drawing;
} machine_t;

static int read_holder(const char *line, const char *format, holders_t *holders) {
    process_t *next = &holders->processes[holders->count];
    if (holders->count == MOST || sscanf(line, format, &next->pid, &next->bytes) != 2) return 0;
    next->bytes *= MIB;
    holders->count++;
    return 1;
}

static machine_t look(void) {
    machine_t machine = {.mode = "error", .count = 0, .computing = {.count = 0}, .drawing = {.count = 0}};
    const char *path = getenv("NVML_STUB_FILE");
    FILE *file = path ? fopen(path, "r") : NULL;
    if (!file) return machine;
    char line[256];
    while (fgets(line, sizeof line, file)) {
        device_t *next = &machine.devices[machine.count];
        if (sscanf(line, "mode %31s", machine.mode) == 1) continue;
        if (read_holder(line, "process %u %llu", &machine.computing)) continue;
        if (read_holder(line, "graphics %u %llu", &machine.drawing)) continue;
        if (machine.count && sscanf(line, "energy %llu", &machine.devices[machine.count - 1].energy_mj) == 1) {
            machine.devices[machine.count - 1].tells = 1;
            continue;
        }
        if (machine.count < MOST &&
            sscanf(line, "device %llu %llu %95[^\n]", &next->total_mb, &next->used_mb, next->name) == 3)
            machine.count++;
    }
    fclose(file);
    return machine;
}

/* Handles count from 1, because a null handle means none. */
static int device_of(void *handle, device_t *device) {
    machine_t machine = look();
    size_t index = (size_t)handle;
    if (index < 1 || index > (size_t)machine.count) return INVALID_ARGUMENT;
    if (strcmp(machine.mode, "lost") == 0) return GPU_IS_LOST;
    *device = machine.devices[index - 1];
    return SUCCESS;
}

static int put(char *buffer, unsigned int length, const char *text) {
    if (strlen(text) + 1 > length) return INSUFFICIENT_SIZE;
    strcpy(buffer, text);
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned int flags) {
    (void)flags;
    machine_t machine = look();
    if (strcmp(machine.mode, "hang") == 0) for (;;) pause();
    if (strcmp(machine.mode, "crash") == 0) abort();
    if (strcmp(machine.mode, "no-driver") == 0) return DRIVER_NOT_LOADED;
    if (strcmp(machine.mode, "mismatch") == 0) return LIB_RM_VERSION_MISMATCH;
    if (strcmp(machine.mode, "error") == 0) return UNKNOWN;
    return SUCCESS;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(int code) {
    switch (code) {
    case SUCCESS: return "Success";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    case LIB_RM_VERSION_MISMATCH: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}

int nvmlSystemGetDriverVersion(char *buffer, unsigned int length) { return put(buffer, length, "580.00.00"); }

int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    *version = 13000;
    return SUCCESS;
}

int nvmlSystemGetCudaDriverVersion(int *version) { return nvmlSystemGetCudaDriverVersion_v2(version); }

int nvmlDeviceGetCount_v2(unsigned int *count) {
    *count = (unsigned int)look().count;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **handle) {
    if (index >= (unsigned int)look().count) return INVALID_ARGUMENT;
    *handle = (void *)(size_t)(index + 1);
    return SUCCESS;
}

int nvmlDeviceGetIndex(void *handle, unsigned int *index) {
    device_t device;
    *index = (unsigned int)(size_t)handle - 1;
    return device_of(handle, &device);
}

int nvmlDeviceGetName(void *handle, char *buffer, unsigned int length) {
    device_t device;
    int code = device_of(handle, &device);
    return code == SUCCESS ? put(buffer, length, device.name) : code;
}

int nvmlDeviceGetUUID(void *handle, char *buffer, unsigned int length) {
    device_t device;
    char text[64];
    int code = device_of(handle, &device);
    snprintf(text, sizeof text, "GPU-00000000-0000-0000-0000-%012zu", (size_t)handle - 1);
    return code == SUCCESS ? put(buffer, length, text) : code;
}

int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    device_t device;
    *major = 8;
    *minor = 9;
    return device_of(handle, &device);
}

int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
    device_t device;
    int code = device_of(handle, &device);
    if (code != SUCCESS) return code;
    if (strcmp(look().mode, "hang-memory") == 0) for (;;) pause();
    memory->total = device.total_mb * MIB;
    memory->used = device.used_mb * MIB;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo_v2(void *handle, memory_v2_t *memory) {
    memory_t plain;
    int code = nvmlDeviceGetMemoryInfo(handle, &plain);
    if (code != SUCCESS) return code;
    memory->total = plain.total;
    memory->reserved = 0;
    memory->used = plain.used;
    memory->free = plain.free;
    return SUCCESS;
}

int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *energy) {
    device_t device;
    int code = device_of(handle, &device);
    if (code != SUCCESS) return code;
    *energy = device.energy_mj;
    return device.tells ? SUCCESS : NOT_SUPPORTED;
}

static int list_holders(void *handle, const holders_t *holders, unsigned int *count, process_t *processes) {
    device_t device;
    int code = device_of(handle, &device);
    if (code != SUCCESS) return code;
    unsigned int room = *count;
    *count = (unsigned int)holders->count;
    if (room < *count) return INSUFFICIENT_SIZE;
    if (*count) memcpy(processes, holders->processes, *count * sizeof *processes);
    return SUCCESS;
}

/* Every process is on every device: enough to be named. */
int nvmlDeviceGetComputeRunningProcesses_v3(void *handle, unsigned int *count, process_t *processes) {
    machine_t machine = look();
    return list_holders(handle, &machine.computing, count, processes);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(void *handle, unsigned int *count, process_t *processes) {
    machine_t machine = look();
    if (strcmp(machine.mode, "no-graphics") == 0) return NOT_SUPPORTED;
    return list_holders(handle, &machine.drawing, count, processes);
}
