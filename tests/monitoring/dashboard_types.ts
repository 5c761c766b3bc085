// What Grafana's own schema says of a dashboard and of the panels that ours has. Grafana fills in what a panel leaves out.

import type { Dashboard, DataQuery, Panel } from "@grafana/schema";
import type * as Stat from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type * as TimeSeries from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

// As it is in JSON, where a member of an enumeration is its text.
type Plain<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Plain<T[K]> } : T;
type Some<T> = T extends (infer Each)[] ? Some<Each>[] : T extends object ? { [K in keyof T]?: Some<T[K]> } : T;

type Fields<Custom> = { defaults: NonNullable<Panel["fieldConfig"]>["defaults"] & { custom?: Custom }; overrides: [] };
type Query = DataQuery & { expr: string; legendFormat?: string };
type Of<Type extends string, Options, Custom> = Omit<Panel, "type" | "options" | "fieldConfig" | "targets"> & {
  type: Type;
  options: Some<Options>;
  fieldConfig: Fields<Some<Custom>>;
  targets: Query[];
};

export type Ours = Plain<
  Omit<Dashboard, "panels"> & {
    panels: (Of<"stat", Stat.Options, never> | Of<"timeseries", TimeSeries.Options, TimeSeries.FieldConfig>)[];
  }
>;
