// llama.cpp's chat templates and parsers behind functions with C linkage, which speak JSON.
//
// Every function that returns text returns a string that rbee_chat_free takes back. What goes wrong is
// {"error": "..."}: no exception leaves this library. A template needs no model, so any process can open one.

#include "chat.h"
#include "log.h"

#include <cstdlib>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <string>

#define RBEE_API extern "C" __attribute__((visibility("default")))

namespace {

using json = common_json;

char * copied(const std::string & text) {
    char * copy = static_cast<char *>(std::malloc(text.size() + 1));
    if (copy != nullptr) {
        std::memcpy(copy, text.c_str(), text.size() + 1);
    }
    return copy;
}

char * guarded(const std::function<json()> & work) {
    json answer;
    try {
        answer = work();
    } catch (const std::exception & error) {
        answer = json{{"error", std::string(error.what())}};
    } catch (...) {
        answer = json{{"error", "unknown"}};
    }
    try {
        return copied(answer.dump());
    } catch (...) {
        return copied("{\"error\":\"the answer is no text\"}");
    }
}

struct parser_handle {
    common_chat_parser_params params;
};

common_chat_templates_inputs inputs_of(const json & request) {
    common_chat_templates_inputs inputs;
    inputs.messages = common_chat_msgs_parse_oaicompat(request.at("messages"));
    if (request.contains("tools")) {
        inputs.tools = common_chat_tools_parse_oaicompat(request.at("tools"));
    }
    inputs.tool_choice         = common_chat_tool_choice_parse_oaicompat(request.value("tool_choice", std::string("auto")));
    inputs.parallel_tool_calls = request.value("parallel_tool_calls", false);
    inputs.json_schema         = request.value("json_schema", std::string());
    inputs.enable_thinking     = request.value("enable_thinking", true);
    inputs.force_pure_content  = request.value("content_only", false);
    inputs.reasoning_format    = COMMON_REASONING_FORMAT_DEEPSEEK;
    inputs.add_generation_prompt = true;
    if (request.value("continue_final_message", false)) {
        inputs.continue_final_message = COMMON_CHAT_CONTINUATION_AUTO;
        inputs.add_generation_prompt  = false;
    }
    if (request.contains("template_kwargs")) {
        for (const auto & item : request.at("template_kwargs").items()) {
            inputs.chat_template_kwargs[item.key()] = item.value().dump();
        }
    }
    return inputs;
}

json described(const common_chat_params & params) {
    json triggers = json::array();
    for (const auto & trigger : params.grammar_triggers) {
        triggers.push_back(json{{"type", static_cast<int>(trigger.type)}, {"value", trigger.value}});
    }
    return json{
        {"prompt", params.prompt},
        {"generation_prompt", params.generation_prompt},
        {"format", static_cast<int>(params.format)},
        {"parser", params.parser},
        {"grammar", params.grammar},
        {"grammar_lazy", params.grammar_lazy},
        {"grammar_triggers", triggers},
        {"preserved_tokens", params.preserved_tokens},
        {"stops", params.additional_stops},
        {"supports_thinking", params.supports_thinking},
        {"thinking_start", params.thinking_start_tag},
        {"thinking_ends", params.thinking_end_tags},
    };
}

}  // namespace

// Opens a template. The handle is null where *error has the reason.
RBEE_API void * rbee_chat_template_open(const char * source, const char * begin, const char * end, char ** error) {
    void * handle = nullptr;
    *error = guarded([&] {
        common_log_set_verbosity_thold(-1);
        common_chat_template(source, begin, end);  // throws with the reason, which the next line loses
        handle = common_chat_templates_init(nullptr, source, begin, end).release();
        return json{{"capabilities", common_chat_templates_get_caps(static_cast<common_chat_templates *>(handle))}};
    });
    return handle;
}

RBEE_API void rbee_chat_template_close(void * handle) {
    common_chat_templates_free(static_cast<common_chat_templates *>(handle));
}

// Applies a request: the prompt, and all that is needed to hold and to read the answer.
RBEE_API char * rbee_chat_apply(void * handle, const char * request) {
    return guarded([&] {
        const auto * templates = static_cast<common_chat_templates *>(handle);
        return described(common_chat_templates_apply(templates, inputs_of(json::parse(request))));
    });
}

// Opens what reads the answers to a request, from the fields format, generation_prompt and parser of the above.
RBEE_API void * rbee_chat_parser_open(const char * description, char ** error) {
    void * handle = nullptr;
    *error = guarded([&] {
        common_log_set_verbosity_thold(-1);
        const json given = json::parse(description);
        auto parser = std::make_unique<parser_handle>();
        parser->params.format            = static_cast<common_chat_format>(given.at("format").get<int>());
        parser->params.reasoning_format  = COMMON_REASONING_FORMAT_DEEPSEEK;
        parser->params.generation_prompt = given.value("generation_prompt", std::string());
        const std::string arena = given.value("parser", std::string());
        if (!arena.empty()) {
            parser->params.parser.load(arena);
        }
        handle = parser.release();
        return json::object();
    });
    return handle;
}

RBEE_API void rbee_chat_parser_close(void * handle) {
    delete static_cast<parser_handle *>(handle);
}

// Parses the text of an answer, which is partial while it is generated: content, reasoning_content, tool_calls.
RBEE_API char * rbee_chat_parse(void * handle, const char * text, size_t length, int partial) {
    return guarded([&] {
        const auto & params = static_cast<parser_handle *>(handle)->params;
        const auto message = common_chat_parse(std::string(text, length), partial != 0, params);
        json calls = json::array();
        for (const auto & call : message.tool_calls) {
            calls.push_back(json{{"id", call.id}, {"name", call.name}, {"arguments", call.arguments}});
        }
        return json{
            {"content", message.render_content("")},
            {"reasoning_content", message.reasoning_content},
            {"tool_calls", calls},
        };
    });
}

RBEE_API void rbee_chat_free(char * text) {
    std::free(text);
}
