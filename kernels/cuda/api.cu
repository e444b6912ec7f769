#include "context.h"

#include "../common/api.inl"
