# microgpt-serve: `make help`. Nothing to configure; everything is built under $(B).
SHELL  := /bin/bash
comma  := ,
B      ?= build
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
DESTDIR ?=
CC     ?= gcc
CFLAGS ?= -O2 -g
PYTHON ?= /usr/bin/python3
SAN    ?=
V      ?=
PORT   ?= 8080
MODEL_DIR ?= deploy/demo/chat

# ---- flags ----------------------------------------------------------------------------------
Q      := $(if $(V),,@)# V=1 shows each command
WARN   := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wpointer-arith \
          -Wwrite-strings -Wvla -Wformat=2 -Wno-psabi $(if $(WERROR),-Werror)
SANFLAGS := $(if $(SAN),-fsanitize=$(SAN) -fno-sanitize-recover=all -fno-omit-frame-pointer)
ALLCFLAGS = -std=gnu11 -D_GNU_SOURCE -fvisibility=hidden -fPIE -ffp-contract=off $(WARN) $(CFLAGS) $(SANFLAGS) -MMD -MP
ALLLDFLAGS = $(LDFLAGS) $(SANFLAGS) -pie
MACHINE := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
BLIS_LIB ?= -lblis
BLIS_INC = $(firstword $(wildcard /usr/include/*/blis-pthread /usr/include/*/blis-serial /usr/include/*/blis-openmp))

# ---- what is built --------------------------------------------------------------------------
CORE_SRC := $(filter-out core/kernels.c,$(wildcard core/*.c))
TRAIN_SRC := $(wildcard core/train/*.c)
CLI_SRC  := $(wildcard core/cli/*.c)
FCGI_SRC := $(wildcard fcgi/*.c)
UNIT_SRC := $(wildcard tests/unit/test_*.c)
UNIT_LIB := $(filter-out $(UNIT_SRC),$(wildcard tests/unit/*.c))
# core/kernels.c once per instruction set: one source, same bits (core/ops.h)
KERNELS_x86_64 := plain avx2 avx512
KERNELS_aarch64 := plain neon
KFLAGS_plain :=
KFLAGS_avx2 := -march=x86-64-v3
KFLAGS_avx512 := -march=x86-64-v4 -mprefer-vector-width=512
KFLAGS_neon :=
KERNELS := $(or $(KERNELS_$(MACHINE)),plain)

CORE_OBJ := $(CORE_SRC:%.c=$(B)/%.o) $(KERNELS:%=$(B)/core/kernels_%.o)
LIB  := $(B)/libmicrogpt.a
SVC  := $(B)/microgpt-fcgi
CLI  := $(B)/microgpt
UNIT := $(UNIT_SRC:%.c=$(B)/%)
FUZZERS := $(patsubst %.c,$(B)/%,$(wildcard tests/fuzz/fuzz_*.c))

.PHONY: fuzz fuzzers test-arm test-host test-clients test-all help all lib run demo test deps lint fmt coverage bench bench-quick soak install uninstall deb unit clean
MAKEFLAGS += --no-builtin-rules # they would try to make the .d files
.DELETE_ON_ERROR:
.SECONDARY:
help:    ## this list
	@grep -hE '^[a-z-]+: .*##|^[a-z-]+:  *##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16
all: $(SVC) $(CLI) ## build the service and the command line program
lib: $(LIB)

# (with sanitizers at -O2 gcc takes minutes for these)
$(KERNELS:%=$(B)/core/kernels_%.o): $(B)/core/kernels_%.o: core/kernels.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALLCFLAGS) $(KFLAGS_$*) $(if $(SAN),-O1 -g0) -DMG_ISA=$* -c -o $@ $<
$(B)/core/ops_blis.o: ALLCFLAGS += -isystem $(BLIS_INC)
# the elementwise loops of training: -O3 for the vectoriser
$(B)/core/train/vec.o $(B)/core/train/adam.o: ALLCFLAGS += -O3
$(B)/core/train/tile.o: ALLCFLAGS += -O3 -ffp-contract=fast
$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(ALLCFLAGS) -c -o $@ $<
$(LIB): $(CORE_OBJ)
	@rm -f $@
	$(Q)ar rcs $@ $^
$(SVC): $(FCGI_SRC:%.c=$(B)/%.o) $(LIB)
	$(Q)$(CC) $(ALLLDFLAGS) -o $@ $^ -lfcgi -ljansson -lnettle $(BLIS_LIB) -lm $(LDLIBS)
$(CLI): $(CLI_SRC:%.c=$(B)/%.o) $(TRAIN_SRC:%.c=$(B)/%.o) $(B)/libservice.a $(LIB)
	$(Q)$(CC) $(ALLLDFLAGS) -o $@ $^ -ljansson -lnettle $(BLIS_LIB) -ledit -lpthread -lm $(LDLIBS)
# all of the service but main: for tests of its parts, and for verify (fcgi/replay.h)
$(B)/libservice.a: $(patsubst %.c,$(B)/%.o,$(filter-out fcgi/main.c,$(FCGI_SRC)))
	@rm -f $@
	$(Q)ar rcs $@ $^
$(B)/tests/unit/test_fcgi_%: $(B)/tests/unit/test_fcgi_%.o $(UNIT_LIB:%.c=$(B)/%.o) $(B)/libservice.a $(LIB)
	$(Q)$(CC) $(ALLLDFLAGS) -o $@ $^ -lcmocka -lfcgi -ljansson -lnettle $(BLIS_LIB) -lpthread -lm $(LDLIBS)
$(B)/tests/unit/test_%: $(B)/tests/unit/test_%.o $(UNIT_LIB:%.c=$(B)/%.o) $(LIB)
	$(Q)$(CC) $(ALLLDFLAGS) -o $@ $^ -lcmocka -ljansson -lnettle $(BLIS_LIB) -lpthread -lm $(LDLIBS)
TRAIN_OBJ := $(TRAIN_SRC:%.c=$(B)/%.o)
$(B)/tests/unit/test_train_%: $(B)/tests/unit/test_train_%.o $(TRAIN_OBJ) $(UNIT_LIB:%.c=$(B)/%.o) $(LIB)
	$(Q)$(CC) $(ALLLDFLAGS) -o $@ $^ -lcmocka -ljansson -lnettle $(BLIS_LIB) -lpthread -lm $(LDLIBS)
$(B)/tests/bench/train: $(B)/tests/bench/train.o $(B)/tests/bench/peak.o $(TRAIN_OBJ) $(LIB)
	$(Q)$(CC) $(ALLLDFLAGS) -o $@ $^ -ljansson -lnettle $(BLIS_LIB) -lpthread -lm $(LDLIBS)
# targets of the fuzzers: with clang's engine in build/fuzz, else with a short run of our own
FUZZ_DRIVER := $(if $(findstring fuzzer,$(SAN)),,$(B)/tests/fuzz/driver.o)
$(B)/tests/fuzz/fuzz_%: $(B)/tests/fuzz/fuzz_%.o $(B)/tests/fuzz/fuzz.o $(FUZZ_DRIVER) $(B)/libservice.a $(TRAIN_OBJ) $(LIB)
	$(Q)$(CC) $(ALLLDFLAGS) $(FUZZ_LINK) -o $@ $^ -lfcgi -ljansson -lnettle $(BLIS_LIB) -lpthread -lm $(LDLIBS)
unit: $(UNIT) $(FUZZERS)

# ---- running, installing --------------------------------------------------------------------
export B PORT PREFIX SYSCONFDIR DESTDIR
JOBS := -j$(shell nproc)
SANITIZED = SAN=address,undefined B=$(B)/san
# all of $(1) in parallel, quietly; says so if there is anything to do
build = $(MAKE) --no-print-directory -q $(1) 2>/dev/null || echo "building (V=1 shows how)"; \
        $(MAKE) --no-print-directory $(JOBS) $(1)
deps:    ## install what is missing from Debian's archive (DEPS="..." instead of the list)
	@conf/deps.sh $(DEPS)
run:     ## build, then serve $(MODEL_DIR) through nginx on 127.0.0.1:$(PORT)
	@conf/deps.sh $(DEPS)
	@$(call build,all)
	@MODEL_DIR="$(MODEL_DIR)" exec conf/run.sh
install: all ## DESTDIR= PREFIX=/usr/local SYSCONFDIR=/etc
	@deploy/install.sh install
uninstall: ## take away all but configuration and models
	@deploy/install.sh uninstall
deb:     ## Debian package in build/deb
	@deploy/deb.sh
lint:    ## layers, sizes, static analysis
	@deploy/lint.sh
fmt:     ## clang-format all of it
	clang-format -i $(wildcard core/*.[ch] core/cli/*.[ch] core/train/*.[ch] fcgi/*.[ch] tests/*/*.[ch])
coverage: ## line coverage of core/ and fcgi/ by all tests
	@+deploy/coverage.sh

demo: $(CLI) ## train the demo models again: minutes, the same bytes on the same machine
	@deploy/demo/train.sh $(CLI) $(B)/demo

# ---- tests ----------------------------------------------------------------------------------
test:    ## build, also with sanitizers, and run all tests; the last line is the count
	@conf/deps.sh $(DEPS)
	@$(call build,all)
	@$(call build,$(SANITIZED) all unit)
	@tests/run --build $(B)
test-host: ## package, units and recipes on Debian 12 and 13 that booted (root; some minutes)
	@conf/deps.sh make gcc mmdebstrap systemd-container debhelper lintian uidmap prometheus umoci
	@$(call build,all)
	@tests/host/run
# tests/clients: comparisons with what others wrote, pinned in its package-lock.json
test-clients: ## other people's programs against ours, where the npm registry is reached
	@node --version >/dev/null 2>&1 && npm --version >/dev/null 2>&1 || conf/deps.sh npm nodejs
	@$(MAKE) --no-print-directory $(JOBS) all
	@tests/clients/run --build $(B)
# every suite there is, each with its count in $(B)/test; the last line is the sum
SUITES := test test-clients test-host
test-all: ## all of $(SUITES)
	@tests/all $(SUITES)
FUZZ ?= # one of tests/fuzz/fuzz_*.c, by its name; all of them for TIME seconds each
TIME ?= 60
fuzz:    ## clang's fuzzers: make fuzz FUZZ=record TIME=600
	@conf/deps.sh $(DEPS) clang
	@$(call build,CC=clang SAN=fuzzer-no-link$(comma)address$(comma)undefined B=$(B)/fuzz FUZZ_LINK=-fsanitize=fuzzer fuzzers)
	@tests/fuzz/run $(B)/fuzz "$(FUZZ)" $(TIME)
fuzzers: $(FUZZERS)
soak:    ## what takes longer than a test run should: load, leaks, reloads
	@conf/deps.sh $(DEPS)
	@$(call build,all)
	@$(call build,$(SANITIZED) all)
	@tests/run --build $(B) --soak

# the kernels of aarch64 under qemu-user give the bits of this machine
ARM := aarch64-linux-gnu
HASHES := $(B)/tests/arm/hashes
$(HASHES): $(addprefix $(B)/,tests/arm/hashes.o tests/unit/op_hashes.o tests/unit/memory_model.o core/forward.o \
           core/ops.o core/error.o core/matrix.o core/tensors.o $(KERNELS:%=core/kernels_%.o))
	$(Q)$(CC) $(ALLLDFLAGS) -o $@ $^ -lm
test-arm: $(HASHES) ## the kernels on aarch64 (under qemu) and here give the same bits
	@$(MAKE) --no-print-directory B=$(B)/arm CC=$(ARM)-gcc $(B)/arm/tests/arm/hashes
	$(HASHES) > $(B)/hashes.here
	qemu-aarch64 -L /usr/$(ARM) $(B)/arm/tests/arm/hashes > $(B)/hashes.arm
	cmp $(B)/hashes.here $(B)/hashes.arm

# ---- speed ----------------------------------------------------------------------------------
$(B)/tests/bench/peak.o: CFLAGS += -march=native -ffp-contract=fast
$(B)/tests/bench/bench: $(addprefix $(B)/tests/,bench/bench.o bench/peak.o unit/oracle.o) $(LIB)
	$(Q)$(CC) $(ALLLDFLAGS) -o $@ $^ -ljansson -lnettle $(BLIS_LIB) -lm $(LDLIBS)
$(B)/tests/bench/make-model: $(addprefix $(B)/tests/,bench/make_model.o unit/make_model.o)
	$(Q)$(CC) $(ALLLDFLAGS) -o $@ $^ -lm $(LDLIBS)
$(B)/tests/bench/nothing: $(B)/tests/bench/nothing.o
	$(Q)$(CC) $(ALLLDFLAGS) -o $@ $^ -lfcgi $(LDLIBS)
BENCH := $(addprefix $(B)/tests/bench/,bench make-model nothing train)
bench: all $(BENCH) ## speed: a table, and the same as JSON in build/bench.json (some minutes)
	@tests/bench/run.py --build $(B)
bench-quick: all $(BENCH) ## the same in under a minute, fewer rows
	@tests/bench/run.py --build $(B) --quick

clean:   ## remove build/
	rm -rf $(B)
-include $(shell find $(B)/core $(B)/fcgi $(B)/tests -name '*.d' -type f 2>/dev/null)
