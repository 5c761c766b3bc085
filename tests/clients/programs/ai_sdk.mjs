// Two turns of a conversation with a tool, streamed, and an object of a schema; prints what was told as JSON.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const rbee = createOpenAICompatible({
  name: "rbee",
  baseURL: process.env.BASE_URL,
  apiKey: process.env.RBEE_KEY,
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const model = rbee(process.env.MODEL);
const count_bees = tool({
  description: "Count the bees of a hive",
  inputSchema: z.object({ hive: z.enum(["north", "south"]), hours: z.int().min(1).max(24) }),
  execute: async ({ hours }) => ({ bees: hours * 100 }),
});

const messages = [];
const turns = [];
for (const question of ["How many bees?", "And now?"]) {
  messages.push({ role: "user", content: question });
  const result = streamText({ model, messages, tools: { count_bees }, stopWhen: stepCountIs(4) });
  const kinds = {};
  for await (const part of result.fullStream) {
    if (part.type === "error") throw part.error;
    kinds[part.type] = (kinds[part.type] ?? 0) + 1;
  }
  messages.push(...(await result.response).messages);
  turns.push({
    kinds,
    text: await result.text,
    steps: (await result.steps).map((step) => ({
      thought: step.reasoningText,
      calls: step.toolCalls.map((call) => call.input),
      results: step.toolResults.map((outcome) => outcome.output),
      reason: step.finishReason,
      tokens: step.usage.outputTokens,
    })),
  });
}
const { object } = await generateObject({ model, schema: z.object({ hives: z.int().min(1) }), prompt: "How many?" });
console.log(JSON.stringify({ turns, object }));
